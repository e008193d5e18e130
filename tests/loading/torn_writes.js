// Ends no write that goes on in a file: its first half is on the disk, and the server is asked for something that it never answers.
const { prototype } = FileSystemSyncAccessHandle;
const { write } = prototype;

prototype.write = function (bytes, options) {
  if (!options.at || bytes.length < 2) return write.call(this, bytes, options);
  write.call(this, bytes.subarray(0, bytes.length >> 1), options);
  this.flush();
  const request = new XMLHttpRequest();
  request.open("GET", `/torn-write?at=${options.at}`, false);
  request.send();
};
