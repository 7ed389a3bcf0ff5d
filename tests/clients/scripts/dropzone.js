"use strict";

Dropzone.autoDiscover = false;

function upload(file, { endpoint, headers, chunkSize, tries }) {
    return new Promise((resolve, reject) => {
        const dropzone = new Dropzone("div", {
            url: endpoint,
            headers,
            chunking: true,
            chunkSize,
            parallelChunkUploads: true,
            retryChunks: true,
            retryChunksLimit: tries,
        });
        dropzone.on("success", (file) => resolve(uidIn(file.xhr.responseText)));
        dropzone.on("error", (_, message) => reject(message));
        dropzone.addFile(file);
    });
}
