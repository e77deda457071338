package tidewire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static tidewire.Environment.sdk;
import static tidewire.Environment.unique;

import com.pusher.client.PusherOptions;
import com.pusher.client.channel.PresenceChannel;
import com.pusher.client.channel.PrivateChannel;
import com.pusher.client.connection.ConnectionState;
import com.pusher.rest.data.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@DisplayName("The official Java client 2.4.4, protocol 5")
@Timeout(60)
class JavaClientTest {
    private final List<Client> opened = new ArrayList<>();

    private Client client() {
        return keep(new Client());
    }

    private Client keep(Client client) {
        opened.add(client);
        return client;
    }

    @AfterEach
    void disconnect() {
        opened.forEach(Client::close);
    }

    private static void publish(String channel, String event, Object data) {
        Result result = sdk().trigger(channel, event, data);
        assertEquals(Result.Status.SUCCESS, result.getStatus(), result.getMessage());
    }

    @Test
    @DisplayName("S006 connects with protocol 5")
    void connects() throws Exception {
        Client client = client().connected();
        assertTrue(client.pusher.getConnection().getSocketId().matches("\\d+\\.\\d+"));
    }

    @Test
    @DisplayName("S028 its ping without data is answered, so an idle connection stays")
    void pings() throws Exception {
        PusherOptions impatient = new PusherOptions().setActivityTimeout(1000).setPongTimeout(1000);
        Client client = keep(new Client(Environment.KEY, impatient)).connected();
        ConnectionState change = client.states.poll(3500, TimeUnit.MILLISECONDS);
        assertNull(change, "three pings were due; " + client.failures);
    }

    @Test
    @DisplayName("S043 S129 a public channel delivers published events in order")
    void publicChannel() throws Exception {
        String channel = unique("news");
        Client client = client().connected();
        client.subscribe(channel);
        for (int n = 0; n < 20; n++) {
            publish(channel, "headline", Map.of("n", n));
        }
        for (int n = 0; n < 20; n++) {
            assertEquals("{\"n\":" + n + "}", client.expect("headline", channel).text());
        }
    }

    @Test
    @DisplayName("S048 an unsubscribed channel is silent and can be joined again")
    void unsubscribes() throws Exception {
        String left = unique("left");
        String kept = unique("kept");
        Client client = client().connected();
        client.subscribe(left);
        client.pusher.unsubscribe(left);
        // Commands are processed in order: this success says that the one before it is done.
        client.subscribe(kept);
        publish(left, "late", "");
        publish(kept, "marker", "");
        client.expect("marker", kept);
        client.subscribe(left);
    }

    @Test
    @DisplayName("S057 S087 S088 private channels carry client events to the others, as strings")
    void privateChannel() throws Exception {
        String channel = unique("private-doc");
        Client receiver = client().connected();
        receiver.subscribePrivate(channel);
        Client sender = client().connected();
        PrivateChannel doc = sender.subscribePrivate(channel);
        doc.trigger("client-cursor", "{\"x\":3}");
        Client.Seen event = receiver.expect("client-cursor", channel);
        assertEquals("{\"x\":3}", event.text());
        assertNull(event.userId());
        publish(channel, "marker", "");
        sender.expect("marker", channel);
    }

    @Test
    @DisplayName("S069 S071 S073 S089 presence members see each other come, speak and go")
    void presence() throws Exception {
        String channel = unique("presence-room");
        Client ada = client().as("ada").connected();
        PresenceChannel room = ada.subscribePresence(channel);
        assertEquals("ada", room.getMe().getId());
        Client lin = client().as("lin").connected();
        PresenceChannel same = lin.subscribePresence(channel);
        assertEquals(2, same.getUsers().size());
        Client.Seen joined = ada.expect("joined", channel);
        assertEquals("lin {\"name\":\"n-lin\"}", joined.userId() + " " + joined.text());
        same.trigger("client-wave", "{}");
        assertEquals("lin", ada.expect("client-wave", channel).userId());
        lin.close();
        assertEquals("lin", ada.expect("left", channel).userId());
        assertEquals(1, room.getUsers().size());
    }

    @Test
    @DisplayName("S110 S111 an encrypted event is decrypted")
    void encrypted() throws Exception {
        String channel = unique("private-encrypted-a");
        Client client = client().connected();
        client.subscribeEncrypted(channel);
        publish(channel, "secret", Map.of("pin", 1234));
        assertEquals("{\"pin\":1234}", client.expect("secret", channel).text());
    }

    @Test
    @DisplayName("S102 S103 a cache channel gives its last event, or a miss as a generic event")
    void cache() throws Exception {
        String channel = unique("cache-a");
        Client first = client().connected();
        first.subscribe(channel);
        first.expect("pusher:cache_miss", channel);
        publish(channel, "price", Map.of("cents", 1250));
        first.expect("price", channel);
        Client late = client().connected();
        late.subscribe(channel);
        assertEquals("{\"cents\":1250}", late.expect("price", channel).text());
    }

    @Test
    @DisplayName("S061 S068 a refused subscription is one error without a code and the connection stays")
    void refusedSubscription() throws Exception {
        Client client = client().withToken(Environment.KEY + ":" + "0".repeat(64)).connected();
        client.pusher.subscribePrivate(unique("private-a"));
        Client.Failure failure = client.failure();
        assertNull(failure.code());
        assertTrue(failure.message().startsWith("Invalid signature"), failure.message());
        client.subscribe(unique("news"));
        assertTrue(client.failures.stream().allMatch(f -> f.equals(failure)), client.failures.toString());
    }

    @Test
    @DisplayName("S112 a refused encrypted subscription does not throw inside the client")
    void refusedEncryptedSubscription() throws Exception {
        Client client = client().withToken(Environment.KEY + ":" + "0".repeat(64) + "\",\"shared_secret\":\""
                + Environment.MASTER_KEY).connected();
        client.pusher.subscribePrivateEncrypted(unique("private-encrypted-a"), null);
        assertNull(client.failure().code());
        client.subscribe(unique("news"));
    }

    @Test
    @DisplayName("S012 an unknown key ends in DISCONNECTED with error 4001, without a retry")
    void unknownKey() throws Exception {
        Client client = keep(new Client("unknown-key", new PusherOptions())).start();
        assertEquals("4001", client.failure().code());
        ConnectionState state;
        do {
            state = client.states.poll(Client.PATIENCE_SECONDS, TimeUnit.SECONDS);
            assertTrue(state != ConnectionState.RECONNECTING && state != null, "state " + state);
        } while (state != ConnectionState.DISCONNECTED);
    }

    @Test
    @DisplayName("S116 S120 S122 a user signs in and is sent to")
    void signIn() throws Exception {
        String user = unique("u");
        Client client = client().as(user);
        client.pusher.user().bind("notice", client::event);
        // Before connecting: asked for just when it connects, the client signs in twice.
        client.pusher.signin();
        client.connected();
        // The client subscribes to the user channel by itself and does not tell when that is done.
        Client.Seen notice = null;
        for (int attempt = 0; notice == null && attempt < 50; attempt++) {
            Result result = sdk().post("/events",
                    "{\"name\":\"notice\",\"data\":\"hello\",\"channels\":[\"#server-to-user-" + user + "\"]}");
            assertEquals(Result.Status.SUCCESS, result.getStatus(), result.getMessage());
            notice = client.seen.poll(200, TimeUnit.MILLISECONDS);
        }
        assertEquals(new Client.Seen("notice", "#server-to-user-" + user, "hello", null), notice);
        assertEquals(user, client.pusher.user().userId());
    }

    @Test
    @DisplayName("S181 a terminated user is DISCONNECTED with error 4009, without a retry")
    void terminated() throws Exception {
        String user = unique("u");
        Client client = client().as(user);
        client.pusher.signin();
        client.connected();
        // Nothing tells that the sign-in is done; terminating somebody who is not there is no error.
        Client.Failure failure = null;
        for (int attempt = 0; failure == null && attempt < 50; attempt++) {
            Result result = sdk().post("/users/" + user + "/terminate_connections", "{}");
            assertEquals(Result.Status.SUCCESS, result.getStatus(), result.getMessage());
            failure = client.failures.poll(200, TimeUnit.MILLISECONDS);
        }
        assertEquals("4009", failure == null ? "none" : failure.code());
        client.await(ConnectionState.DISCONNECTED);
    }
}
