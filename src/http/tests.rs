//! The HTTP API without sockets: a request in, an answer out.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use hyper::{Request, StatusCode};
use md5::{Digest, Md5};
use tidewire_protocol::http_auth::canonical_string;
use tidewire_protocol::{ApiQuery, ChannelName, Member, SigningKey};

use super::handle;
use crate::clock::Clock;
use crate::config::{AppConfig, Config};
use crate::hub::channel::JoinLimits;
use crate::node::Node;
use crate::worker::mailbox::Job;

const BODY: &str = r#"{"name":"order.paid","data":"{\"id\":7}","channels":["shop-1"]}"#;

/// Apps 42 and 43 without workers: what would be delivered stays in the mailbox.
struct Api {
    node: Node,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: hyper::HeaderMap,
    body: String,
}

impl Api {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&mut Config, &mut AppConfig)) -> Self {
        let mut app = AppConfig::new("42", "tw-demo-key", "tw-demo-secret");
        let mut config = Config::for_tests(Vec::new());
        change(&mut config, &mut app);
        config.apps = vec![app, AppConfig::new("43", "other-key", "other-secret")];
        Self { node: Node::new(config, None, 1, Clock::default()).unwrap() }
    }

    async fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        self.answer(Request::builder().method(method).uri(target), body).await
    }

    async fn answer(&self, request: hyper::http::request::Builder, body: &str) -> Answer {
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let (head, body) = handle(&self.node, request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", &self.signed("POST", path, body), body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", &self.signed("GET", path, ""), "").await
    }

    fn signed(&self, method: &str, target: &str, body: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut query = format!(
            "auth_key=tw-demo-key&auth_timestamp={}&auth_version=1.0{}{query}",
            self.node.clock.unix_seconds(),
            if query.is_empty() { "" } else { "&" },
        );
        if !body.is_empty() {
            query.push_str("&body_md5=");
            Md5::digest(body).iter().for_each(|byte| query.push_str(&format!("{byte:02x}")));
        }
        let canonical = canonical_string(method, path, &ApiQuery::parse(&query));
        let signature = SigningKey::new("tw-demo-secret").sign_hex(&[canonical.as_bytes()]);
        format!("{path}?{query}&auth_signature={signature}")
    }

    fn subscribe(&self, channel: &str, user_id: Option<&str>) {
        let app = self.node.apps.by_id("42").unwrap();
        let name = ChannelName::parse(channel, 200).unwrap();
        let member = user_id.map(|id| Member { user_id: id.into(), user_info: None });
        let limits = JoinLimits { max_members: 100, announce_count: false };
        app.channels.subscribe(name, 0, member.as_ref(), limits, None, 0).unwrap();
        self.delivered();
    }

    /// Frames that wait for the worker, as text.
    fn delivered(&self) -> Vec<String> {
        let mut jobs = Vec::new();
        self.node.mailboxes[0].take(&mut jobs);
        let frames = jobs.iter().filter_map(|job| match job {
            Job::Deliver(delivery) => Some(String::from_utf8_lossy(&delivery.frame[2..]).into_owned()),
            _ => None,
        });
        frames.collect()
    }
}

#[tokio::test]
async fn a_signed_event_is_answered_with_an_empty_object_and_delivered() {
    let api = Api::new();
    api.subscribe("shop-1", None);
    let answer = api.post("/apps/42/events", BODY).await;
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    assert_eq!(api.delivered(), [r#"{"event":"order.paid","channel":"shop-1","data":"{\"id\":7}"}"#]);
    assert_eq!(api.node.apps.by_id("42").unwrap().metrics.triggers.get(), 1);
}

#[tokio::test]
async fn s138_s140_s141_a_key_has_to_be_there_and_to_belong_to_the_app() {
    let api = Api::new();
    let answer = api.send("POST", "/apps/42/events", BODY).await;
    assert_eq!((answer.status, &*answer.body), (401, "Missing parameter: auth_key\n"));
    let answer = api.send("POST", "/apps/42/events?auth_key=nobody", BODY).await;
    assert_eq!((answer.status, &*answer.body), (401, "Unknown auth_key\n"));
    assert_eq!(api.post("/apps/43/events", BODY).await.status, 401);
    let answer = api.post("/apps/44/events", BODY).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("no app with the id 44"), "{}", answer.body);
}

#[tokio::test]
async fn s142_s149_a_changed_body_or_signature_publishes_nothing() {
    let api = Api::new();
    api.subscribe("shop-1", None);
    let target = api.signed("POST", "/apps/42/events", BODY);
    assert_eq!(api.send("POST", &target, &BODY.replace('7', "8")).await.status, 401);
    let wrong = format!("{}{}", &target[..target.len() - 1], if target.ends_with('0') { '1' } else { '0' });
    let answer = api.send("POST", &wrong, BODY).await;
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains(r"POST\n/apps/42/events\nauth_key=tw-demo-key&"), "{}", answer.body);
    assert!(!answer.body.contains("tw-demo-secret"));
    assert!(api.delivered().is_empty());
}

#[tokio::test]
async fn s146_a_path_is_accepted_with_and_without_its_prefix_however_it_was_signed() {
    let api = Api::with(|config, _| config.server.path_prefix = "/ws".to_owned());
    let below = api.signed("GET", "/apps/42/channels", "");
    let whole = api.signed("GET", "/ws/apps/42/channels", "");
    let query_of = |target: &str| target.split_once('?').unwrap().1.to_owned();
    for (path, query) in [
        ("/ws/apps/42/channels", query_of(&below)),
        ("/apps/42/channels", query_of(&below)),
        ("/ws/apps/42/channels", query_of(&whole)),
        ("/apps/42/channels", query_of(&whole)),
        ("//ws//apps/42/channels", query_of(&below)),
    ] {
        let answer = api.send("GET", &format!("{path}?{query}"), "").await;
        assert_eq!(answer.status, 200, "{path} {}", answer.body);
    }
}

#[tokio::test]
async fn s148_a_channel_in_the_path_may_be_escaped() {
    let api = Api::new();
    api.subscribe("a@b,c;d=e", None);
    for path in ["/apps/42/channels/a@b,c;d=e", "/apps/42/channels/a%40b%2Cc%3Bd%3De"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, &*answer.body), (200, r#"{"occupied":true}"#), "{path}");
    }
    assert_eq!(api.get("/apps/42/channels/%ff").await.status, 400);
    assert_eq!(api.get("/apps/42/channels/a%20b").await.status, 400);
}

#[tokio::test]
async fn a_disabled_app_is_refused_after_its_signature() {
    let api = Api::with(|_, app| app.enabled = false);
    assert_eq!(api.post("/apps/42/events", BODY).await.status, 403);
    assert_eq!(api.send("POST", "/apps/42/events?auth_key=tw-demo-key", BODY).await.status, 401);
}

#[tokio::test]
async fn s163_info_tells_of_each_channel_what_applies_to_it() {
    let api = Api::with(|_, app| app.subscription_count = true);
    api.subscribe("presence-a", Some("u-1"));
    api.subscribe("presence-a", Some("u-1"));
    api.subscribe("news", None);
    let body = r#"{"name":"e","data":"","channels":["presence-a","news","idle"],"info":"user_count,subscription_count"}"#;
    let answer = api.post("/apps/42/events", body).await;
    let expected = r#"{"channels":{"presence-a":{"user_count":1},"news":{"subscription_count":1},"idle":{"subscription_count":0}}}"#;
    assert_eq!((answer.status, &*answer.body), (200, expected));
}

#[tokio::test]
async fn s167_s168_a_batch_is_delivered_in_order_and_answered_by_position() {
    let api = Api::new();
    api.subscribe("presence-a", Some("u-1"));
    let item =
        |name: &str, info: &str| format!(r#"{{"name":"{name}","data":"","channel":"presence-a"{info}}}"#);
    let body = format!(r#"{{"batch":[{},{}]}}"#, item("one", ""), item("two", ""));
    assert_eq!(api.post("/apps/42/batch_events", &body).await.body, "{}");
    let names: Vec<bool> = api.delivered().iter().map(|frame| frame.contains(r#""event":"one""#)).collect();
    assert_eq!(names, [true, false]);

    let body = format!(r#"{{"batch":[{},{}]}}"#, item("one", ""), item("two", r#","info":"user_count""#));
    let answer = api.post("/apps/42/batch_events", &body).await;
    assert_eq!(answer.body, r#"{"batch":[{},{"user_count":1}]}"#);
}

#[tokio::test]
async fn s169_one_invalid_item_refuses_the_whole_batch() {
    let api = Api::new();
    api.subscribe("a", None);
    let body =
        r#"{"batch":[{"name":"e","data":"","channel":"a"},{"name":"pusher:e","data":"","channel":"a"}]}"#;
    assert_eq!(api.post("/apps/42/batch_events", body).await.status, 400);
    assert!(api.delivered().is_empty());
}

#[tokio::test]
async fn s170_s171_s172_s173_the_list_holds_occupied_channels_with_their_counts() {
    let api = Api::new();
    assert_eq!(api.get("/apps/42/channels").await.body, r#"{"channels":{}}"#);
    api.subscribe("presence-a", Some("u-1"));
    api.subscribe("news", None);
    assert_eq!(api.get("/apps/42/channels").await.body, r#"{"channels":{"news":{},"presence-a":{}}}"#);
    let answer = api.get("/apps/42/channels?filter_by_prefix=presence-&info=user_count").await;
    assert_eq!(answer.body, r#"{"channels":{"presence-a":{"user_count":1}}}"#);
    assert_eq!(api.get("/apps/42/channels?info=user_count").await.status, 400);
    for unknown in ["nonsense", "cache"] {
        let answer = api.get(&format!("/apps/42/channels?info={unknown}")).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.body.contains("info should be a comma separated list of attributes"),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn s175_s176_one_channel_tells_what_its_kind_can_have() {
    let api = Api::new();
    assert_eq!(api.get("/apps/42/channels/never-seen").await.body, r#"{"occupied":false}"#);
    for wrong in
        ["news?info=user_count", "news?info=subscription_count", "news?info=cache", "news?info=nonsense"]
    {
        assert_eq!(api.get(&format!("/apps/42/channels/{wrong}")).await.status, 400, "{wrong}");
    }
    api.subscribe("presence-a", Some("u-1"));
    let answer = api.get("/apps/42/channels/presence-a?info=user_count").await;
    assert_eq!(answer.body, r#"{"occupied":true,"user_count":1}"#);
}

#[tokio::test]
async fn s177_a_cache_channel_tells_its_event_or_null() {
    let api = Api::new();
    let empty = api.get("/apps/42/channels/cache-x?info=cache").await;
    assert_eq!(empty.body, r#"{"occupied":false,"cache":null}"#);
    api.post("/apps/42/events", r#"{"name":"e","data":"{\"v\":1}","channel":"cache-x"}"#).await;
    let filled = api.get("/apps/42/channels/cache-x?info=cache").await;
    assert_eq!(filled.body, r#"{"occupied":false,"cache":{"data":"{\"v\":1}","ttl":1800}}"#);
}

#[tokio::test]
async fn s178_s179_s180_users_are_those_of_a_presence_channel() {
    let api = Api::new();
    assert_eq!(api.get("/apps/42/channels/presence-a/users").await.body, r#"{"users":[]}"#);
    api.subscribe("presence-a", Some("7"));
    assert_eq!(api.get("/apps/42/channels/presence-a/users").await.body, r#"{"users":[{"id":"7"}]}"#);
    assert_eq!(api.get("/apps/42/channels/news/users").await.status, 400);
}

#[tokio::test]
async fn s182_s183_a_user_is_terminated_with_and_without_the_app_in_the_path() {
    let api = Api::new();
    for path in ["/apps/42/users/u-1/terminate_connections", "/users/u-1/terminate_connections"] {
        let answer = api.post(path, "{}").await;
        assert_eq!((answer.status, &*answer.body), (200, "{}"), "{path}");
        assert_eq!(api.post(path, "").await.status, 200);
    }
}

#[tokio::test]
async fn s184_the_calls_of_2012_still_work() {
    let api = Api::new();
    api.subscribe("a", None);
    let answer = api.post("/apps/42/channels/a/events?name=e", "say \"hi\"").await;
    assert_eq!((answer.status, &*answer.body), (202, ""));
    assert_eq!(api.delivered(), [r#"{"event":"e","channel":"a","data":"say \"hi\""}"#]);
    assert_eq!(api.post("/apps/42/channels/a/events", "x").await.status, 400);
    assert_eq!(api.get("/apps/42/channels/a/stats").await.body, r#"{"occupied":true,"connection_count":1}"#);
    assert_eq!(api.get("/apps/42/channels/b/stats").await.body, r#"{"occupied":false}"#);
}

#[tokio::test]
async fn connections_are_counted() {
    let api = Api::new();
    assert!(api.node.apps.by_id("42").unwrap().admit_connection());
    assert_eq!(api.get("/apps/42/connections").await.body, r#"{"connections":1}"#);
}

#[tokio::test]
async fn s185_wrong_paths_and_methods_are_explained() {
    let api = Api::new();
    let answer = api.send("GET", "/ws/apps/42/nothing", "").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("This is Tidewire, and there is nothing at GET /ws/apps/42/nothing."));
    assert!(answer.body.contains("set server.path_prefix to \"/ws\""), "{}", answer.body);

    let answer = api.send("GET", "/apps/42/events", "").await;
    assert_eq!((answer.status, &answer.headers[ALLOW]), (405, &"POST".parse().unwrap()));
    assert_eq!(api.send("OPTIONS", "/apps/42/events", "").await.status, 405);

    let answer = api.send("GET", "/app/tw-demo-key", "").await;
    assert_eq!((answer.status, &answer.headers[UPGRADE]), (426, &"websocket".parse().unwrap()));
}

#[tokio::test]
async fn s186_a_batch_counts_as_many_events_as_it_holds() {
    let api = Api::with(|_, app| app.limits.triggers_per_second = 2);
    let item = r#"{"name":"e","data":"","channel":"a"}"#;
    let batch = format!(r#"{{"batch":[{item},{item}]}}"#);
    assert_eq!(api.post("/apps/42/batch_events", &batch).await.status, 200);
    let answer = api.post("/apps/42/events", item).await;
    assert_eq!((answer.status, &answer.headers[RETRY_AFTER]), (429, &"1".parse().unwrap()));
    assert_eq!(api.get("/apps/42/channels").await.status, 200);
    api.node.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(api.post("/apps/42/events", item).await.status, 200);
}

#[tokio::test]
async fn a_full_mailbox_tells_the_publisher_to_come_back() {
    let api = Api::with(|config, _| config.server.mailbox_jobs = 1);
    api.subscribe("a", None);
    let item = r#"{"name":"e","data":"","channel":"a"}"#;
    assert_eq!(api.post("/apps/42/events", item).await.status, 200);
    let answer = api.post("/apps/42/events", item).await;
    assert_eq!((answer.status, &answer.headers[RETRY_AFTER]), (503, &"1".parse().unwrap()));
    assert_eq!(api.node.metrics.mailbox_full.get(), 1);
    assert_eq!(api.delivered().len(), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_in_json_for_whoever_accepts_it() {
    let api = Api::with(|config, _| config.server.max_request_body_bytes = 100);
    let body = "x".repeat(101);
    let target = api.signed("POST", "/apps/42/events", &body);
    let request = Request::post(target).header(ACCEPT, "application/json");
    let answer = api.answer(request, &body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.body.starts_with(r#"{"error":"The request body of 101 bytes exceeds"#), "{}", answer.body);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let api = Api::new();
    api.send("GET", "/up", "").await;
    api.send("GET", "/secret/path", "").await;
    let page = api.node.metrics.encode();
    assert!(page.contains(r#"tidewire_api_requests_total{route="up",status="200"} 1"#), "{page}");
    assert!(page.contains(r#"tidewire_api_requests_total{route="none",status="404"} 1"#));
    assert!(!page.contains("secret"));
}
