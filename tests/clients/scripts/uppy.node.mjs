// Uploads a file with @uppy/tus, as its argument says; prints the uid.
import fs from "node:fs";

import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

const given = JSON.parse(process.argv[2]);

const uppy = new Uppy();
uppy.use(Tus, {
    endpoint: given.endpoint,
    headers: given.headers,
    chunkSize: given.chunkSize,
    retryDelays: Array(1000).fill(50),
});
uppy.addFile({ name: given.name, data: fs.readFileSync(given.path) });
const { successful, failed } = await uppy.upload();
if (failed.length) {
    console.error(failed[0].error);
    process.exit(1);
}
console.log(successful[0].uploadURL.split("/").pop());
