// Package guard stands between the internet and the gateway's handlers. Step 1 of 7: nothing reaches a handler but a request of
// bounded size, at a bounded rate, in bounded time, and with a key where one is asked for.
//
// Server and Listener bound connections, headers and time; Wrap bounds rates and bodies, and adds the request id, the access
// log, gzip and the security headers; Authorize asks for a key and its scope.
package guard
