"use strict";

function upload(file, { endpoint, headers, chunkSize, pause }) {
    return new Promise((resolve) => {
        const pond = FilePond.create(document.querySelector("div"), {
            server: { url: endpoint, headers },
            // Else it waits, to look busy.
            allowMinimumUploadDuration: false,
            chunkUploads: true,
            chunkSize,
            chunkRetryDelays: Array(1000).fill(pause),
            // It tries chunks again, but leaves the first request to the user.
            onprocessfile: (error, item) =>
                error ? pond.processFile(item.id) : resolve(item.serverId),
        });
        pond.addFile(file);
        takeBack = () => pond.removeFile({ revert: true });
    });
}
