// The worker that downloads, on a disk whose writes are torn.
import "./torn_writes.js";
import "/static/engine/transfer_worker.js";
