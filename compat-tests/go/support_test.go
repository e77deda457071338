package compat

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pusher/pusher-http-go/v5"
	"golang.org/x/net/websocket"
)

const patience = 10 * time.Second

// setting is a variable of compat-tests/run, or what it would be.
func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return strings.TrimRight(value, "/")
	}
	return fallback
}

func appKey() string { return setting("TIDEWIRE_APP_KEY", "tw-demo-key") }

// authority is host:port; both libraries want it without a scheme.
func authority(variable, scheme string) string {
	return strings.TrimPrefix(setting(variable, scheme+"127.0.0.1:6001"), scheme)
}

// A fixed master key of 32 bytes, for encrypted channels.
const masterKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func sdk() *pusher.Client {
	return &pusher.Client{
		AppID: setting("TIDEWIRE_APP_ID", "42"), Key: appKey(), Secret: setting("TIDEWIRE_APP_SECRET", "tw-demo-secret"),
		Host: authority("TIDEWIRE_HTTP", "http://"), Secure: false, EncryptionMasterKeyBase64: masterKey,
	}
}

var names atomic.Int64

// unique is a name that nobody else uses.
func unique(stem string) string {
	return fmt.Sprintf("%s-go-%d-%d", stem, os.Getpid(), names.Add(1))
}

type frame struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel"`
	Data    json.RawMessage `json:"data"`
}

// text is `data` of every server frame but pusher:error: a string.
func (f frame) text(t *testing.T) string {
	t.Helper()
	var text string
	must(t, json.Unmarshal(f.Data, &text))
	return text
}

// subscriber is a connection that shows every frame.
type subscriber struct {
	t        *testing.T
	socket   *websocket.Conn
	socketID string
}

func connect(t *testing.T) *subscriber {
	t.Helper()
	address := fmt.Sprintf("ws://%s/app/%s?protocol=7", authority("TIDEWIRE_WS", "ws://"), appKey())
	socket, err := websocket.Dial(address, "", "http://localhost/")
	must(t, err)
	t.Cleanup(func() { socket.Close() })
	s := &subscriber{t: t, socket: socket}
	var established struct {
		SocketID string `json:"socket_id"`
	}
	must(t, json.Unmarshal([]byte(s.expect("pusher:connection_established").text(t)), &established))
	s.socketID = established.SocketID
	return s
}

func (s *subscriber) send(event string, data any) {
	s.t.Helper()
	must(s.t, websocket.JSON.Send(s.socket, map[string]any{"event": event, "data": data}))
}

// expect reads the next frame, which must be this event.
func (s *subscriber) expect(event string) frame {
	s.t.Helper()
	must(s.t, s.socket.SetReadDeadline(time.Now().Add(patience)))
	var next frame
	must(s.t, websocket.JSON.Receive(s.socket, &next))
	if next.Event != event {
		s.t.Fatalf("expected %s, got %s %s", event, next.Event, next.Data)
	}
	return next
}

func (s *subscriber) subscribe(data map[string]string) frame {
	s.t.Helper()
	s.send("pusher:subscribe", data)
	return s.expect("pusher_internal:subscription_succeeded")
}

func (s *subscriber) on(channel string) *subscriber {
	s.t.Helper()
	s.subscribe(map[string]string{"channel": channel})
	return s
}

// request is the form that a client posts to a customer's authorisation endpoint.
func (s *subscriber) request(channel string) []byte {
	return []byte(url.Values{"socket_id": {s.socketID}, "channel_name": {channel}}.Encode())
}

// withToken makes the data of a subscription of an SDK's answer.
func withToken(t *testing.T, token []byte, channel string) map[string]string {
	t.Helper()
	var data map[string]string
	must(t, json.Unmarshal(token, &data))
	// The shared secret stays between the endpoint and the client.
	delete(data, "shared_secret")
	data["channel"] = channel
	return data
}

func (s *subscriber) member(channel, userID string) frame {
	s.t.Helper()
	token, err := sdk().AuthorizePresenceChannel(s.request(channel), pusher.MemberData{UserID: userID})
	must(s.t, err)
	return s.subscribe(withToken(s.t, token, channel))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}
