// Package compat checks the Go libraries of Pusher Channels against Tidewire with only their host changed.
package compat

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pusher/pusher-http-go/v5"
	"golang.org/x/crypto/nacl/secretbox"
)

func ref(text string) *string { return &text }

func TestS227_trigger_with_escaped_json_is_delivered(t *testing.T) {
	channel := unique("orders")
	reader := connect(t).on(channel)
	must(t, sdk().Trigger(channel, "order.paid", map[string]string{"note": "<b>ü 🐎</b> & more"}))
	var data map[string]string
	must(t, json.Unmarshal([]byte(reader.expect("order.paid").text(t)), &data))
	equal(t, data["note"], "<b>ü 🐎</b> & more")
}

func TestS131_trigger_with_text_arrives_as_it_is(t *testing.T) {
	channel := unique("a")
	reader := connect(t).on(channel)
	must(t, sdk().Trigger(channel, "said", "plain <text>"))
	equal(t, reader.expect("said").text(t), "plain <text>")
}

func TestS151_trigger_multi_reaches_each_channel(t *testing.T) {
	first, second := unique("a"), unique("b")
	one, two := connect(t).on(first), connect(t).on(second)
	must(t, sdk().TriggerMulti([]string{first, second}, "tick", "x"))
	equal(t, one.expect("tick").Channel, first)
	equal(t, two.expect("tick").Channel, second)
}

func TestS132_trigger_exclusive_skips_one_connection(t *testing.T) {
	channel := unique("chat")
	author, reader := connect(t).on(channel), connect(t).on(channel)
	client := sdk()
	must(t, client.TriggerExclusive(channel, "said", "hi", author.socketID))
	must(t, client.TriggerMultiExclusive([]string{channel}, "said", "hi", author.socketID))
	must(t, client.Trigger(channel, "marker", ""))
	author.expect("marker")
	reader.expect("said")
	reader.expect("said")
}

func TestS163_trigger_with_info_returns_user_counts(t *testing.T) {
	channel := unique("presence-a")
	connect(t).member(channel, "u-1")
	connect(t).member(channel, "u-1")
	list, err := sdk().TriggerWithParams(channel, "x", "", pusher.TriggerParams{Info: ref("user_count")})
	must(t, err)
	equal(t, *list.Channels[channel].UserCount, 1)
	list, err = sdk().TriggerMultiWithParams([]string{channel}, "x", "", pusher.TriggerParams{Info: ref("user_count")})
	must(t, err)
	equal(t, *list.Channels[channel].UserCount, 1)
}

func TestS167_trigger_batch_without_info_decodes(t *testing.T) {
	channel := unique("feed")
	reader := connect(t).on(channel)
	list, err := sdk().TriggerBatch([]pusher.Event{
		{Channel: channel, Name: "first", Data: map[string]int{"n": 1}},
		{Channel: channel, Name: "second", Data: "text", SocketID: ref("1.2")},
	})
	must(t, err)
	equal(t, len(list.Batch), 0)
	equal(t, reader.expect("first").text(t), `{"n":1}`)
	equal(t, reader.expect("second").text(t), "text")
}

func TestS168_trigger_batch_with_info_is_an_array_in_order(t *testing.T) {
	channel := unique("presence-a")
	connect(t).member(channel, "u-1")
	list, err := sdk().TriggerBatch([]pusher.Event{
		{Channel: unique("a"), Name: "x", Data: ""},
		{Channel: channel, Name: "x", Data: "", Info: ref("user_count")},
	})
	must(t, err)
	equal(t, len(list.Batch), 2)
	equal(t, list.Batch[0].UserCount == nil, true)
	equal(t, *list.Batch[1].UserCount, 1)
}

func TestS171_channels_by_prefix_with_user_count(t *testing.T) {
	channel := unique("presence-a@x,y.z;q=1")
	connect(t).member(channel, "u-1")
	list, err := sdk().Channels(pusher.ChannelsParams{FilterByPrefix: ref("presence-a@x,y"), Info: ref("user_count")})
	must(t, err)
	equal(t, list.Channels[channel].UserCount, 1)
}

func TestS170_channels_without_a_match_is_an_empty_object(t *testing.T) {
	list, err := sdk().Channels(pusher.ChannelsParams{FilterByPrefix: ref(unique("nobody"))})
	must(t, err)
	equal(t, len(list.Channels), 0)
	equal(t, list.Channels != nil, true)
}

func TestS175_channel_never_seen_is_not_occupied(t *testing.T) {
	channel, err := sdk().Channel(unique("never"), pusher.ChannelParams{})
	must(t, err)
	equal(t, channel.Occupied, false)
}

func TestS144_S148_channel_with_raw_special_characters(t *testing.T) {
	name := unique("presence-a@x,y.z;q=1")
	connect(t).member(name, "u-1")
	channel, err := sdk().Channel(name, pusher.ChannelParams{Info: ref("user_count")})
	must(t, err)
	equal(t, channel.Occupied, true)
	equal(t, channel.UserCount, 1)
}

func TestS178_S179_get_channel_users(t *testing.T) {
	channel := unique("presence-a")
	users, err := sdk().GetChannelUsers(channel)
	must(t, err)
	equal(t, len(users.List), 0)
	connect(t).member(channel, "7")
	connect(t).member(channel, "7")
	users, err = sdk().GetChannelUsers(channel)
	must(t, err)
	equal(t, len(users.List), 1)
	equal(t, users.List[0].ID, "7")
}

func TestS116_S120_S122_a_user_signs_in_with_a_token_of_the_sdk_and_is_sent_to(t *testing.T) {
	user := unique("u")
	reader := connect(t)
	token, err := sdk().AuthenticateUser([]byte("socket_id="+reader.socketID), map[string]any{"id": user})
	must(t, err)
	var signIn map[string]string
	must(t, json.Unmarshal(token, &signIn))
	reader.send("pusher:signin", signIn)
	reader.expect("pusher:signin_success")
	reader.on("#server-to-user-" + user)
	must(t, sdk().SendToUser(user, "notice", "hello"))
	equal(t, reader.expect("notice").text(t), "hello")
}

func TestS057_a_token_for_a_private_channel_opens_it(t *testing.T) {
	channel := unique("private-a")
	reader := connect(t)
	token, err := sdk().AuthorizePrivateChannel(reader.request(channel))
	must(t, err)
	equal(t, reader.subscribe(withToken(t, token, channel)).text(t), "{}")
}

func TestS069_a_token_for_a_presence_channel_makes_a_member(t *testing.T) {
	channel := unique("presence-a")
	reader := connect(t)
	member := pusher.MemberData{UserID: "u-1", UserInfo: map[string]string{"name": "Ada"}}
	token, err := sdk().AuthorizePresenceChannel(reader.request(channel), member)
	must(t, err)
	success := reader.subscribe(withToken(t, token, channel)).text(t)
	var data struct {
		Presence struct {
			Count int
			IDs   []string
			Hash  map[string]map[string]string
		}
	}
	must(t, json.Unmarshal([]byte(success), &data))
	equal(t, data.Presence.Count, 1)
	equal(t, data.Presence.IDs[0], "u-1")
	equal(t, data.Presence.Hash["u-1"]["name"], "Ada")
}

func TestS110_S111_an_encrypted_event_passes_and_decrypts(t *testing.T) {
	channel := unique("private-encrypted-a")
	reader := connect(t)
	token, err := sdk().AuthorizePrivateChannel(reader.request(channel))
	must(t, err)
	equal(t, reader.subscribe(withToken(t, token, channel)).text(t), "{}")
	must(t, sdk().Trigger(channel, "secret", map[string]int{"pin": 1234}))
	var sealed struct{ Nonce, Ciphertext []byte }
	must(t, json.Unmarshal([]byte(reader.expect("secret").text(t)), &sealed))
	master, err := base64.StdEncoding.DecodeString(masterKey)
	must(t, err)
	key := sha256.Sum256(append([]byte(channel), master...))
	opened, ok := secretbox.Open(nil, sealed.Ciphertext, (*[24]byte)(sealed.Nonce), &key)
	equal(t, ok, true)
	equal(t, string(opened), `{"pin":1234}`)
}

func TestS149_a_wrong_secret_is_an_error_that_shows_the_string_to_sign(t *testing.T) {
	stranger := sdk()
	stranger.Secret = "another-secret"
	err := stranger.Trigger(unique("a"), "x", "")
	if err == nil || !strings.Contains(err.Error(), "Status Code: 401") || !strings.Contains(err.Error(), `POST\n/apps/`) {
		t.Fatal(err)
	}
}

func TestS176_a_refused_read_is_an_error_with_the_servers_text(t *testing.T) {
	_, err := sdk().Channel(unique("news"), pusher.ChannelParams{Info: ref("user_count")})
	if err == nil || !strings.Contains(err.Error(), "Status Code: 400") {
		t.Fatal(err)
	}
}

func TestS153_data_over_the_limit_is_413(t *testing.T) {
	client := sdk()
	client.OverrideMaxMessagePayloadKB = 20
	must(t, client.Trigger(unique("a"), "x", strings.Repeat("y", 10_240)))
	err := client.Trigger(unique("a"), "x", strings.Repeat("y", 10_241))
	if err == nil || !strings.Contains(err.Error(), "Status Code: 413") {
		t.Fatal(err)
	}
}
