package contract

// SocketPrefix begins an address that is the path of a Unix socket, in flags,
// in what proxies are sent and in the ready line.
const SocketPrefix = "unix:"
