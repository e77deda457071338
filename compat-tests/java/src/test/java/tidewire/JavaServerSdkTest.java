package tidewire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static tidewire.Environment.sdk;
import static tidewire.Environment.unique;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.pusher.rest.PusherAsync;
import com.pusher.rest.data.Event;
import com.pusher.rest.data.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@DisplayName("The official Java server SDK 1.3.4")
@Timeout(60)
class JavaServerSdkTest {
    private final List<Client> opened = new ArrayList<>();

    private Client client() throws InterruptedException {
        Client client = new Client();
        opened.add(client);
        return client;
    }

    @AfterEach
    void disconnect() {
        opened.forEach(Client::close);
    }

    /** The body of a call that succeeded: only 200 is SUCCESS. */
    private static JsonObject body(Result result) {
        assertEquals(Result.Status.SUCCESS, result.getStatus(), result.getMessage());
        return JsonParser.parseString(result.getMessage()).getAsJsonObject();
    }

    private static JsonObject json(String text) {
        return JsonParser.parseString(text).getAsJsonObject();
    }

    @Test
    @DisplayName("S227 trigger on one channel is delivered")
    void trigger() throws Exception {
        String channel = unique("orders");
        Client reader = client().connected();
        reader.subscribe(channel);
        assertEquals(json("{}"), body(sdk().trigger(channel, "order.paid", Map.of("note", "ü 🐎 <b>"))));
        assertEquals(json("{\"note\":\"ü 🐎 <b>\"}"), json(reader.expect("order.paid", channel).text()));
    }

    @Test
    @DisplayName("S132 S151 trigger on several channels skips the socket named")
    void triggerMany() throws Exception {
        String first = unique("a");
        String second = unique("b");
        Client author = client().connected();
        Client reader = client().connected();
        for (Client client : List.of(author, reader)) {
            client.subscribe(first);
            client.subscribe(second);
        }
        String socket = author.pusher.getConnection().getSocketId();
        body(sdk().trigger(List.of(first, second), "said", "hi", socket));
        body(sdk().trigger(first, "marker", ""));
        body(sdk().trigger(second, "marker", ""));
        assertEquals("marker", author.next().kind());
        assertEquals("marker", author.next().kind());
        assertEquals(4, List.of(reader.next(), reader.next(), reader.next(), reader.next()).size());
    }

    @Test
    @DisplayName("S167 a batch is delivered in order; one of eleven is refused")
    void batch() throws Exception {
        String channel = unique("feed");
        Client reader = client().connected();
        reader.subscribe(channel);
        List<Event> ten = new ArrayList<>();
        for (int n = 0; n < 10; n++) {
            ten.add(new Event(channel, "item", Map.of("n", n)));
        }
        assertEquals(json("{}"), body(sdk().trigger(ten)));
        for (int n = 0; n < 10; n++) {
            assertEquals("{\"n\":" + n + "}", reader.expect("item", channel).text());
        }
        ten.add(new Event(channel, "item", "eleven"));
        assertEquals(Result.Status.CLIENT_ERROR, sdk().trigger(ten).getStatus());
        body(sdk().trigger(channel, "marker", ""));
        reader.expect("marker", channel);
    }

    @Test
    @DisplayName("S144 S171 channels with a percent-encoded query in hash order")
    void channels() throws Exception {
        String channel = unique("presence-a@x,y.z;q=1");
        client().connected().subscribePresence(channel);
        Map<String, String> query = Map.of("filter_by_prefix", "presence-a@x,y.z;q=1", "info", "user_count");
        JsonObject channels = body(sdk().get("/channels", query)).getAsJsonObject("channels");
        assertEquals(json("{\"user_count\":1}"), channels.getAsJsonObject(channel));
        Result none = sdk().get("/channels", Map.of("filter_by_prefix", unique("nobody")));
        assertEquals(json("{\"channels\":{}}"), body(none));
    }

    @Test
    @DisplayName("S175 a channel never seen is not occupied")
    void never() {
        assertEquals(json("{\"occupied\":false}"), body(sdk().get("/channels/" + unique("never"))));
    }

    @Test
    @DisplayName("S148 a channel with special characters in its path")
    void special() throws Exception {
        String channel = unique("presence-a@x,y.z;q=1");
        client().connected().subscribePresence(channel);
        JsonObject info = body(sdk().get("/channels/" + channel, Map.of("info", "user_count")));
        assertEquals(json("{\"occupied\":true,\"user_count\":1}"), info);
    }

    @Test
    @DisplayName("S178 S179 users of a presence channel, occupied or not")
    void users() throws Exception {
        String channel = unique("presence-a");
        assertEquals(json("{\"users\":[]}"), body(sdk().get("/channels/" + channel + "/users")));
        client().as("u-7").connected().subscribePresence(channel);
        assertEquals(json("{\"users\":[{\"id\":\"u-7\"}]}"), body(sdk().get("/channels/" + channel + "/users")));
    }

    @Test
    @DisplayName("S149 a wrong secret is an authentication error that shows the string to sign")
    void wrongSecret() {
        Result result = sdk("another-secret").trigger(unique("a"), "x", "");
        assertEquals(Result.Status.AUTHENTICATION_ERROR, result.getStatus());
        assertTrue(result.getMessage().contains("POST\\n/apps/"), result.getMessage());
        assertFalse(result.getMessage().contains(Environment.SECRET));
    }

    @Test
    @DisplayName("S176 a refused read is a client error with the server's text")
    void refusedRead() {
        Result result = sdk().get("/channels/" + unique("news"), Map.of("info", "user_count"));
        assertEquals(Result.Status.CLIENT_ERROR, result.getStatus());
        assertFalse(result.getMessage().isBlank());
    }

    @Test
    @DisplayName("S153 data over the limit is 413")
    void tooMuch() {
        assertEquals(Result.Status.SUCCESS, sdk().trigger(unique("a"), "x", "y".repeat(10_238)).getStatus());
        assertEquals(413, sdk().trigger(unique("a"), "x", "y".repeat(10_239)).getHttpStatus());
    }

    @Test
    @DisplayName("S227 the asynchronous SDK makes the same calls")
    void asynchronous() throws Exception {
        String channel = unique("presence-a@x,y.z;q=1");
        client().connected().subscribePresence(channel);
        try (PusherAsync pusher = new PusherAsync(Environment.APP_ID, Environment.KEY, Environment.SECRET)) {
            pusher.setHost(Environment.HTTP.getAuthority());
            pusher.setEncrypted(false);
            body(pusher.trigger(channel, "x", Map.of("a", 1)).get(10, TimeUnit.SECONDS));
            body(pusher.trigger(List.of(new Event(channel, "x", "y"))).get(10, TimeUnit.SECONDS));
            Map<String, String> query = Map.of("filter_by_prefix", "presence-a@x,y.z;q=1", "info", "user_count");
            JsonObject channels = body(pusher.get("/channels", query).get(10, TimeUnit.SECONDS));
            assertEquals(json("{\"user_count\":1}"), channels.getAsJsonObject("channels").getAsJsonObject(channel));
            JsonObject info = body(pusher.get("/channels/" + channel).get(10, TimeUnit.SECONDS));
            assertEquals(json("{\"occupied\":true}"), info);
        }
    }
}
