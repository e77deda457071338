package tidewire;

import com.pusher.rest.Pusher;
import java.net.URI;
import java.util.concurrent.atomic.AtomicInteger;

/** Where the server under test listens, and the app the suites speak for. */
final class Environment {
    static final String APP_ID = setting("TIDEWIRE_APP_ID", "42");
    static final String KEY = setting("TIDEWIRE_APP_KEY", "tw-demo-key");
    static final String SECRET = setting("TIDEWIRE_APP_SECRET", "tw-demo-secret");
    static final URI HTTP = URI.create(setting("TIDEWIRE_HTTP", "http://127.0.0.1:6001"));
    static final URI WS = URI.create(setting("TIDEWIRE_WS", "ws://127.0.0.1:6001"));

    /** 32 bytes, for encrypted channels. */
    static final String MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    private static final AtomicInteger NAMES = new AtomicInteger();

    private Environment() {}

    private static String setting(String name, String fallback) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? fallback : value;
    }

    /** The server SDK with only its host and TLS changed. */
    static Pusher sdk() {
        return sdk(SECRET);
    }

    static Pusher sdk(String secret) {
        Pusher pusher = new Pusher(APP_ID, KEY, secret, MASTER_KEY);
        pusher.setHost(HTTP.getAuthority());
        pusher.setEncrypted(false);
        return pusher;
    }

    /** A name nobody else uses. */
    static String unique(String stem) {
        return stem + "-java-" + ProcessHandle.current().pid() + "-" + NAMES.incrementAndGet();
    }
}
