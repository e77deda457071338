package compat

import (
	"fmt"
	"testing"
	"time"

	client "github.com/avdva/go-pusher"
)

// The one Go client library that a module proxy serves: protocol 7, public channels only, a JSON ping every 30 s.
// It reads `data` into a Go string and hangs up on anything else, which makes it a check of the string rule.

func goClient(t *testing.T) *client.Client {
	t.Helper()
	connection, err := client.NewCustomClient(appKey(), authority("TIDEWIRE_WS", "ws://"), "ws")
	must(t, err)
	t.Cleanup(connection.Close)
	return connection
}

func bind(t *testing.T, connection *client.Client, event string) chan *client.Event {
	t.Helper()
	events, err := connection.Bind(event)
	must(t, err)
	return events
}

// next fails when the library closed its channels, which it does on a frame it cannot decode.
func next(t *testing.T, events chan *client.Event) *client.Event {
	t.Helper()
	select {
	case event, open := <-events:
		equal(t, open, true)
		return event
	case <-time.After(patience):
		t.Fatal("no event came")
		return nil
	}
}

func TestS001_S002_a_go_client_connects_because_data_is_a_string(t *testing.T) {
	goClient(t)
}

func TestS043_S129_a_go_client_subscribes_and_receives_in_order(t *testing.T) {
	channel := unique("news")
	connection := goClient(t)
	subscribed := bind(t, connection, "pusher_internal:subscription_succeeded")
	headlines := bind(t, connection, "headline")
	must(t, connection.Subscribe(channel))
	equal(t, next(t, subscribed).Data, "{}")
	for number := range 20 {
		must(t, sdk().Trigger(channel, "headline", map[string]int{"n": number}))
	}
	for number := range 20 {
		equal(t, next(t, headlines).Data, fmt.Sprintf(`{"n":%d}`, number))
	}
}

func TestS048_a_go_client_unsubscribes(t *testing.T) {
	left, kept := unique("left"), unique("kept")
	connection := goClient(t)
	subscribed := bind(t, connection, "pusher_internal:subscription_succeeded")
	late, marker := bind(t, connection, "late"), bind(t, connection, "marker")
	must(t, connection.Subscribe(left))
	next(t, subscribed)
	must(t, connection.Unsubscribe(left))
	// Commands are processed in order: this success says that the one before it is done.
	must(t, connection.Subscribe(kept))
	next(t, subscribed)
	must(t, sdk().Trigger(left, "late", ""))
	must(t, sdk().Trigger(kept, "marker", ""))
	next(t, marker)
	equal(t, len(late), 0)
}

func TestS012_a_go_client_gets_an_error_for_an_unknown_key(t *testing.T) {
	if _, err := client.NewCustomClient("unknown-key", authority("TIDEWIRE_WS", "ws://"), "ws"); err == nil {
		t.Fatal("connected")
	}
}
