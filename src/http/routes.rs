//! Which answer a method and a path ask for.
//!
//! A dozen routes by pattern: a router would be larger than this file.

use hyper::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'p> {
    Probe(Probe),
    /// `/app/{key}` without an upgrade: somebody, or a proxy, forgot that it is a WebSocket.
    Socket,
    Api {
        /// Absent in the one path of pusher-http-python that lacks it (4.1).
        app_id: Option<&'p str>,
        call: Call<'p>,
    },
}

/// A question about the server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/`, for load balancers that know no other path.
    Root,
    Up,
    Live,
    Ready,
}

/// A call of the REST API. Names out of the path are still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'p> {
    Trigger,
    Batch,
    Channels,
    Channel {
        channel: &'p str,
    },
    ChannelUsers {
        channel: &'p str,
    },
    /// What is kept of a channel, in pages.
    History {
        channel: &'p str,
    },
    /// `DELETE` of the same path: what is kept goes.
    Purge {
        channel: &'p str,
    },
    HistoryState {
        channel: &'p str,
    },
    /// Publishing as it was before 2012 (4.9).
    LegacyTrigger {
        channel: &'p str,
    },
    LegacyStats {
        channel: &'p str,
    },
    TerminateUser {
        user_id: &'p str,
    },
    Connections,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    NotFound,
    /// The path exists for these methods, as the `Allow` header lists them.
    MethodNotAllowed {
        allow: &'static str,
    },
}

/// Segments of the longest route.
const MAX_SEGMENTS: usize = 6;

impl<'p> Route<'p> {
    /// Finds the route of a path that [`strip_prefix`] returned. Repeated slashes count as one.
    pub fn find(method: &Method, path: &'p str) -> Result<Self, NoRoute> {
        let mut found = [""; MAX_SEGMENTS];
        let mut count = 0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            *found.get_mut(count).ok_or(NoRoute::NotFound)? = segment;
            count += 1;
        }
        let route = Self::of_segments(&found[..count]).ok_or(NoRoute::NotFound)?;
        let allow = route.allow();
        let is_allowed = allow.split(", ").any(|allowed| allowed == method.as_str());
        if is_allowed { Ok(route.by(method)) } else { Err(NoRoute::MethodNotAllowed { allow }) }
    }

    fn of_segments(segments: &[&'p str]) -> Option<Self> {
        let (app_id, call) = match *segments {
            [] => return Some(Self::Probe(Probe::Root)),
            ["up"] => return Some(Self::Probe(Probe::Up)),
            ["live"] => return Some(Self::Probe(Probe::Live)),
            ["ready"] => return Some(Self::Probe(Probe::Ready)),
            ["app", _key] => return Some(Self::Socket),
            ["apps", app_id, ref call @ ..] => (Some(app_id), Call::of_segments(call)?),
            ["users", user_id, "terminate_connections"] => (None, Call::TerminateUser { user_id }),
            _ => return None,
        };
        Some(Self::Api { app_id, call })
    }

    /// The one of a path's routes that is meant by its method.
    fn by(self, method: &Method) -> Self {
        match self {
            Self::Api { app_id, call: Call::History { channel } } if *method == Method::DELETE => {
                Self::Api { app_id, call: Call::Purge { channel } }
            }
            route => route,
        }
    }

    fn allow(self) -> &'static str {
        match self {
            // HEAD is for probes: a signature names its method, and no SDK signs HEAD.
            Self::Probe(_) | Self::Socket => "GET, HEAD",
            Self::Api { call, .. } => call.allow(),
        }
    }

    /// The route's name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe(Probe::Root) => "root",
            Self::Probe(Probe::Up) => "up",
            Self::Probe(Probe::Live) => "live",
            Self::Probe(Probe::Ready) => "ready",
            Self::Socket => "socket",
            Self::Api { call, .. } => call.name(),
        }
    }
}

impl<'p> Call<'p> {
    fn of_segments(segments: &[&'p str]) -> Option<Self> {
        Some(match *segments {
            ["events"] => Self::Trigger,
            ["batch_events"] => Self::Batch,
            ["channels"] => Self::Channels,
            ["channels", channel] => Self::Channel { channel },
            ["channels", channel, "users"] => Self::ChannelUsers { channel },
            ["channels", channel, "history"] => Self::History { channel },
            ["channels", channel, "history", "state"] => Self::HistoryState { channel },
            ["channels", channel, "events"] => Self::LegacyTrigger { channel },
            ["channels", channel, "stats"] => Self::LegacyStats { channel },
            ["users", user_id, "terminate_connections"] => Self::TerminateUser { user_id },
            ["connections"] => Self::Connections,
            _ => return None,
        })
    }

    fn allow(self) -> &'static str {
        match self {
            Self::History { .. } | Self::Purge { .. } => "GET, DELETE",
            Self::Trigger | Self::Batch | Self::LegacyTrigger { .. } | Self::TerminateUser { .. } => "POST",
            Self::Channels
            | Self::Channel { .. }
            | Self::ChannelUsers { .. }
            | Self::HistoryState { .. }
            | Self::LegacyStats { .. }
            | Self::Connections => "GET",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Trigger => "events",
            Self::Batch => "batch_events",
            Self::Channels => "channels",
            Self::Channel { .. } => "channel",
            Self::ChannelUsers { .. } => "channel_users",
            Self::History { .. } => "history",
            Self::Purge { .. } => "purge_history",
            Self::HistoryState { .. } => "history_state",
            Self::LegacyTrigger { .. } => "legacy_events",
            Self::LegacyStats { .. } => "legacy_stats",
            Self::TerminateUser { .. } => "terminate_connections",
            Self::Connections => "connections",
        }
    }
}

/// The path as clients sign it: below the configured prefix, when it is there, and with one leading slash.
///
/// A path without the prefix is served as well: some proxies cut it off, others do not.
pub fn strip_prefix<'p>(path: &'p str, prefix: &str) -> &'p str {
    let path = with_one_slash(path);
    match path.strip_prefix(prefix) {
        Some(below) if below.starts_with('/') => with_one_slash(below),
        Some("") if !prefix.is_empty() => "/",
        _ => path,
    }
}

/// Cuts repeated slashes at the start: a `wsPath` that ends in a slash makes `//app/KEY` (1.1).
fn with_one_slash(path: &str) -> &str {
    let more = path.len() - path.trim_start_matches('/').len();
    &path[more.saturating_sub(1)..]
}

/// The app key of a WebSocket path, `""` when it is missing; `None` for any other path (4005).
pub fn socket_key<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let mut segments = strip_prefix(path, prefix).split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next(), segments.next()) {
        (Some("app"), key, None) => Some(key.unwrap_or("")),
        _ => None,
    }
}

/// The app key of a path for event streams.
pub fn stream_key<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let mut segments = strip_prefix(path, prefix).split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("app"), Some(key), Some("sse"), None) => Some(key),
        _ => None,
    }
}

/// What stands before `/app/…` or `/apps/…` in a path that has no route: the prefix a proxy passed on and the
/// configuration does not name.
pub fn unknown_prefix(path: &str) -> Option<&str> {
    let path = with_one_slash(path);
    let at = ["/app/", "/apps/"].iter().filter_map(|known| path.find(known)).min()?;
    Some(&path[..at]).filter(|prefix| !prefix.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Result<Route<'_>, NoRoute> {
        Route::find(&Method::GET, path)
    }

    fn post(path: &str) -> Result<Route<'_>, NoRoute> {
        Route::find(&Method::POST, path)
    }

    #[test]
    fn every_endpoint_is_found() {
        let channel = "presence-a";
        for (path, call) in [
            ("/apps/42/channels", Call::Channels),
            ("/apps/42/channels/presence-a", Call::Channel { channel }),
            ("/apps/42/channels/presence-a/users", Call::ChannelUsers { channel }),
            ("/apps/42/channels/presence-a/history", Call::History { channel }),
            ("/apps/42/channels/presence-a/history/state", Call::HistoryState { channel }),
            ("/apps/42/channels/presence-a/stats", Call::LegacyStats { channel }),
            ("/apps/42/connections", Call::Connections),
        ] {
            assert_eq!(get(path), Ok(Route::Api { app_id: Some("42"), call }), "{path}");
        }
        for (path, app_id, call) in [
            ("/apps/42/events", Some("42"), Call::Trigger),
            ("/apps/42/batch_events", Some("42"), Call::Batch),
            ("/apps/42/channels/presence-a/events", Some("42"), Call::LegacyTrigger { channel }),
            ("/apps/42/users/u-1/terminate_connections", Some("42"), Call::TerminateUser { user_id: "u-1" }),
            ("/users/u-1/terminate_connections", None, Call::TerminateUser { user_id: "u-1" }),
        ] {
            assert_eq!(post(path), Ok(Route::Api { app_id, call }), "{path}");
        }
        assert_eq!(get("/"), Ok(Route::Probe(Probe::Root)));
        assert_eq!(get("/up"), Ok(Route::Probe(Probe::Up)));
        assert_eq!(get("/live"), Ok(Route::Probe(Probe::Live)));
        assert_eq!(get("/ready"), Ok(Route::Probe(Probe::Ready)));
        assert_eq!(get("/app/key"), Ok(Route::Socket));
    }

    #[test]
    fn s185_an_unknown_path_is_not_found_and_a_wrong_method_is_not_allowed() {
        for path in
            ["/apps/42", "/apps/42/nothing", "/apps/42/channels/a/b/c", "/apps/42/channels/a/history/state/d"]
        {
            assert_eq!(get(path), Err(NoRoute::NotFound), "{path}");
        }
        assert_eq!(get("/apps/42/events"), Err(NoRoute::MethodNotAllowed { allow: "POST" }));
        assert_eq!(post("/apps/42/channels"), Err(NoRoute::MethodNotAllowed { allow: "GET" }));
        let options = Route::find(&Method::OPTIONS, "/apps/42/events");
        assert_eq!(options, Err(NoRoute::MethodNotAllowed { allow: "POST" }));
    }

    #[test]
    fn history_is_read_or_purged_by_its_method() {
        let path = "/apps/42/channels/a/history";
        let route = Route::find(&Method::DELETE, path);
        assert_eq!(route, Ok(Route::Api { app_id: Some("42"), call: Call::Purge { channel: "a" } }));
        assert_eq!(post(path), Err(NoRoute::MethodNotAllowed { allow: "GET, DELETE" }));
        let state = Route::find(&Method::DELETE, "/apps/42/channels/a/history/state");
        assert_eq!(state, Err(NoRoute::MethodNotAllowed { allow: "GET" }));
    }

    #[test]
    fn probes_may_ask_with_head() {
        assert_eq!(Route::find(&Method::HEAD, "/up"), Ok(Route::Probe(Probe::Up)));
        assert!(Route::find(&Method::HEAD, "/apps/42/channels").is_err());
    }

    #[test]
    fn the_prefix_is_cut_where_it_is_a_whole_segment() {
        assert_eq!(strip_prefix("/ws/apps/42/events", "/ws"), "/apps/42/events");
        assert_eq!(strip_prefix("/apps/42/events", "/ws"), "/apps/42/events");
        assert_eq!(strip_prefix("/wsx/apps/42/events", "/ws"), "/wsx/apps/42/events");
        assert_eq!(strip_prefix("/ws", "/ws"), "/");
        assert_eq!(strip_prefix("/ws/", "/ws"), "/");
        assert_eq!(strip_prefix("//ws//apps/42/events", "/ws"), "/apps/42/events");
        assert_eq!(strip_prefix("//apps/42/events", ""), "/apps/42/events");
        assert_eq!(strip_prefix("", ""), "");
        assert_eq!(strip_prefix("*", ""), "*");
    }

    #[test]
    fn a_socket_path_may_repeat_slashes_and_miss_its_key() {
        assert_eq!(socket_key("/app/key", ""), Some("key"));
        assert_eq!(socket_key("//app/key", ""), Some("key"));
        assert_eq!(socket_key("/ws//app/key", "/ws"), Some("key"));
        assert_eq!(socket_key("/app/", ""), Some(""));
        assert_eq!(socket_key("/app", ""), Some(""));
        assert_eq!(socket_key("/app/key/more", ""), None);
        assert_eq!(socket_key("/apps/42/events", ""), None);
    }

    #[test]
    fn a_stream_has_a_path_below_that_of_sockets() {
        assert_eq!(stream_key("/app/key/sse", ""), Some("key"));
        assert_eq!(stream_key("//ws//app/key/sse/", "/ws"), Some("key"));
        for path in ["/app/key", "/app/sse", "/app/key/sse/more", "/apps/42/sse", "/app/key/SSE"] {
            assert_eq!(stream_key(path, ""), None, "{path}");
        }
    }

    #[test]
    fn a_prefix_nobody_configured_is_recognised() {
        assert_eq!(unknown_prefix("/ws/apps/42/events"), Some("/ws"));
        assert_eq!(unknown_prefix("/a/b/app/key"), Some("/a/b"));
        assert_eq!(unknown_prefix("/apps/42/nothing"), None);
        assert_eq!(unknown_prefix("/favicon.ico"), None);
    }
}
