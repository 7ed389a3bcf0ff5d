// Serves tus's own server on a free port, and prints the port.
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";

const [directory, maxSize] = process.argv.slice(2);
const server = new Server({
    path: "/files",
    datastore: new FileStore({
        directory,
        expirationPeriodInMilliseconds: 3_600_000,
    }),
    maxSize: Number(maxSize),
    relativeLocation: true,
});
const listener = server.listen(0, "127.0.0.1", () => {
    console.log(listener.address().port);
});
