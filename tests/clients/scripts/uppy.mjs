import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

window.upload = async (file, { endpoint, headers, chunkSize, pause }) => {
    const uppy = new Uppy();
    const retryDelays = Array(1000).fill(pause);
    uppy.use(Tus, { endpoint, headers, chunkSize, retryDelays });
    uppy.addFile({ name: file.name, type: file.type, data: file });
    const { successful, failed } = await uppy.upload();
    if (failed.length) {
        throw failed[0].error;
    }
    return successful[0].uploadURL.split("/").pop();
};
