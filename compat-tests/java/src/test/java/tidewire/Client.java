package tidewire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.gson.Gson;
import com.pusher.client.AuthenticationFailureException;
import com.pusher.client.Pusher;
import com.pusher.client.PusherOptions;
import com.pusher.client.channel.Channel;
import com.pusher.client.channel.ChannelEventListener;
import com.pusher.client.channel.PresenceChannel;
import com.pusher.client.channel.PresenceChannelEventListener;
import com.pusher.client.channel.PrivateChannel;
import com.pusher.client.channel.PrivateEncryptedChannel;
import com.pusher.client.channel.PrivateEncryptedChannelEventListener;
import com.pusher.client.channel.PusherEvent;
import com.pusher.client.channel.User;
import com.pusher.client.connection.ConnectionEventListener;
import com.pusher.client.connection.ConnectionState;
import com.pusher.client.connection.ConnectionStateChange;
import com.pusher.rest.SignatureUtil;
import com.pusher.rest.data.PresenceUser;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The official Java client; everything it reports is written down in order. */
final class Client implements AutoCloseable {
    static final long PATIENCE_SECONDS = 10;

    /** What a listener was told: kind of call, channel, and its argument. */
    record Seen(String kind, String channel, String text, String userId) {}

    record Failure(String message, String code) {}

    final BlockingQueue<Seen> seen = new LinkedBlockingQueue<>();
    final BlockingQueue<ConnectionState> states = new LinkedBlockingQueue<>();
    final BlockingQueue<Failure> failures = new LinkedBlockingQueue<>();
    final Pusher pusher;
    private final com.pusher.rest.Pusher sdk = Environment.sdk();
    private String userId = "u-1";
    private String token;

    Client() {
        this(Environment.KEY, new PusherOptions());
    }

    Client(String key, PusherOptions options) {
        options.setHost(Environment.WS.getHost()).setWsPort(Environment.WS.getPort()).setUseTLS(false);
        options.setChannelAuthorizer(this::authorize).setUserAuthenticator(this::authenticate);
        pusher = new Pusher(key, options);
    }

    Client as(String userId) {
        this.userId = userId;
        return this;
    }

    Client withToken(String token) {
        this.token = token;
        return this;
    }

    /** What a customer's authorisation endpoint answers. */
    private String authorize(String channel, String socketId) {
        if (token != null) {
            return "{\"auth\":\"" + token + "\"}";
        }
        return channel.startsWith("presence-")
                ? sdk.authenticate(socketId, channel, new PresenceUser(userId, Map.of("name", "n-" + userId)))
                : sdk.authenticate(socketId, channel);
    }

    private String authenticate(String socketId) throws AuthenticationFailureException {
        String data = "{\"id\":\"" + userId + "\"}";
        String signature = SignatureUtil.sign(socketId + "::user::" + data, Environment.SECRET);
        return "{\"auth\":\"" + Environment.KEY + ":" + signature + "\",\"user_data\":"
                + new Gson().toJson(data) + "}";
    }

    Client start() {
        pusher.connect(new ConnectionEventListener() {
            @Override
            public void onConnectionStateChange(ConnectionStateChange change) {
                states.add(change.getCurrentState());
            }

            @Override
            public void onError(String message, String code, Exception e) {
                if (message.startsWith("Existing subscription")) {
                    // The client subscribes twice to what is asked for just when it connects.
                    return;
                }
                failures.add(new Failure(message + (e == null ? "" : " " + e), code));
            }
        });
        return this;
    }

    Client connected() throws InterruptedException {
        start();
        await(ConnectionState.CONNECTED);
        return this;
    }

    void await(ConnectionState wanted) throws InterruptedException {
        ConnectionState state;
        do {
            state = states.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
            assertNotNull(state, "never " + wanted + "; errors: " + failures);
        } while (state != wanted);
    }

    Seen next() throws InterruptedException {
        Seen next = seen.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
        return next != null ? next : fail("nothing came; errors: " + failures);
    }

    Seen expect(String kind, String channel) throws InterruptedException {
        Seen next = next();
        assertEquals(kind + " on " + channel, next.kind() + " on " + next.channel(), next.toString());
        return next;
    }

    Failure failure() throws InterruptedException {
        Failure failure = failures.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
        assertNotNull(failure, "no error was reported");
        return failure;
    }

    Channel subscribe(String name) throws InterruptedException {
        Channel channel = subscribeOnly(name);
        expect("subscribed", name);
        return channel;
    }

    Channel subscribeOnly(String name) {
        Channel channel = pusher.subscribe(name, new Listener());
        channel.bindGlobal(this::event);
        return channel;
    }

    PrivateChannel subscribePrivate(String name) throws InterruptedException {
        PrivateChannel channel = pusher.subscribePrivate(name, new Listener());
        channel.bindGlobal(this::event);
        expect("subscribed", name);
        return channel;
    }

    PrivateEncryptedChannel subscribeEncrypted(String name) throws InterruptedException {
        PrivateEncryptedChannel channel = pusher.subscribePrivateEncrypted(name, new Listener());
        channel.bindGlobal(this::event);
        expect("subscribed", name);
        return channel;
    }

    /** The client tells the members and then the success, of one frame. */
    PresenceChannel subscribePresence(String name) throws InterruptedException {
        PresenceChannel channel = pusher.subscribePresence(name, new Listener());
        channel.bindGlobal(this::event);
        expect("members", name);
        expect("subscribed", name);
        return channel;
    }

    void event(PusherEvent event) {
        if (!event.getEventName().startsWith("pusher_internal:")) {
            seen.add(new Seen(event.getEventName(), event.getChannelName(), event.getData(), event.getUserId()));
        }
    }

    @Override
    public void close() {
        pusher.disconnect();
    }

    private final class Listener
            implements ChannelEventListener, PresenceChannelEventListener, PrivateEncryptedChannelEventListener {
        @Override
        public void onSubscriptionSucceeded(String channel) {
            seen.add(new Seen("subscribed", channel, "", null));
        }

        @Override
        public void onEvent(PusherEvent event) {}

        @Override
        public void onUsersInformationReceived(String channel, Set<User> users) {
            seen.add(new Seen("members", channel, users.stream().map(User::getId).sorted().toList().toString(), null));
        }

        @Override
        public void userSubscribed(String channel, User user) {
            seen.add(new Seen("joined", channel, user.getInfo(), user.getId()));
        }

        @Override
        public void userUnsubscribed(String channel, User user) {
            seen.add(new Seen("left", channel, "", user.getId()));
        }

        @Override
        public void onAuthenticationFailure(String message, Exception e) {
            seen.add(new Seen("refused", null, message, null));
        }

        @Override
        public void onDecryptionFailure(String event, String reason) {
            seen.add(new Seen("undecipherable", null, event + " " + reason, null));
        }
    }
}
