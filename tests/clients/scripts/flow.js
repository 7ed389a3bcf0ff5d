"use strict";

function upload(file, { endpoint, headers, chunkSize, pause, tries, more }) {
    return new Promise((resolve, reject) => {
        const flow = new Flow({
            target: endpoint,
            headers,
            chunkSize,
            chunkRetryInterval: pause,
            maxChunkRetries: tries,
            ...more,
        });
        flow.on("filesSubmitted", () => flow.upload());
        flow.on("fileSuccess", (_, message) => resolve(uidIn(message)));
        flow.on("fileError", (_, message) => reject(message));
        flow.addFile(file);
    });
}
