package main

import (
	"errors"
	"net"
	"net/url"
)

// cases are all of them, in the order they run.
func cases() []Case {
	return []Case{
		{"typed clients: every kind lives its life, in protobuf and JSON", wholeLife},
		{"what is sent is what Go's generated code reads and would write, for every kind", golden},
		{"informers of every kind hold what is there under churn", informed},
		{"a list comes as a watch, with its bookmark", streamed},
		{"tools wait until something is there", untilThere},
		{"versions too old, too new and wrong are refused as they have to be", tooOld},
		{"an informer goes on over a server that is killed", restarted},
		{"a watcher that retries misses nothing over a server that is killed", retried},
	}
}

// isNetwork is an error of the connection, not of the server.
func isNetwork(err error) bool {
	var ofNet net.Error
	var ofURL *url.Error
	return errors.As(err, &ofNet) || errors.As(err, &ofURL)
}
