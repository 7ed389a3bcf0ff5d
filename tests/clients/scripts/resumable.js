"use strict";

function upload(file, { endpoint, headers, chunkSize, pause, tries, more }) {
    return new Promise((resolve, reject) => {
        const resumable = new Resumable({
            target: endpoint,
            headers,
            chunkSize,
            chunkRetryInterval: pause,
            maxChunkRetries: tries,
            ...more,
        });
        resumable.on("fileAdded", () => resumable.upload());
        resumable.on("fileSuccess", (_, message) => resolve(uidIn(message)));
        resumable.on("fileError", (_, message) => reject(message));
        resumable.addFile(file);
    });
}
