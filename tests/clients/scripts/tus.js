"use strict";

function upload(file, { endpoint, headers, chunkSize, pause }) {
    return new Promise((resolve, reject) => {
        const upload = new tus.Upload(file, {
            endpoint,
            headers,
            chunkSize,
            retryDelays: Array(1000).fill(pause),
            metadata: { filename: file.name, filetype: file.type },
            onError: reject,
            onSuccess: () => resolve(upload.url.split("/").pop()),
        });
        takeBack = () => upload.abort(true);
        upload.findPreviousUploads().then((earlier) => {
            if (earlier.length) {
                upload.resumeFromPreviousUpload(earlier[0]);
            }
            upload.start();
        });
    });
}
