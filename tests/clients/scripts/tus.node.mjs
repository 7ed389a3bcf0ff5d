// Uploads a file with tus-js-client, as its argument says; prints the uid.
import fs from "node:fs";

import tus from "tus-js-client";

const given = JSON.parse(process.argv[2]);

const upload = new tus.Upload(fs.createReadStream(given.path), {
    endpoint: given.endpoint,
    headers: given.headers,
    chunkSize: given.chunkSize,
    retryDelays: Array(1000).fill(50),
    metadata: given.name ? { filename: given.name } : {},
    urlStorage: new tus.FileUrlStorage(given.memory),
    ...given.more,
    onError(error) {
        console.error(String(error));
        process.exit(1);
    },
    onSuccess() {
        console.log(upload.url.split("/").pop());
    },
});
const earlier = await upload.findPreviousUploads();
if (earlier.length) {
    upload.resumeFromPreviousUpload(earlier[0]);
}
upload.start();
