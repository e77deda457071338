//! Apps and limits that change under open connections.

use tidewire::config::{AppConfig, Config, Credential, Secret};

use crate::common::{Client, Credentials, TestServer, demo_app, error_message};

fn reload(server: &TestServer, apps: Vec<AppConfig>) {
    server.inner().reload(Config::for_tests(apps)).unwrap();
}

fn other_app() -> AppConfig {
    AppConfig::new("43", "other-key", "other-secret")
}

async fn connect_to_other(server: &TestServer) -> Client {
    let socket = server.upgrade("/app/other-key?protocol=7").await.upgraded();
    Client::greeted(socket, server.rest_as("other-key", "other-secret")).await
}

#[tokio::test]
async fn an_app_that_stays_keeps_its_connections_and_gets_new_limits() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.join("presence-a", "u-1").await;
    client.subscribe("private-a").await;
    let mut app = demo_app();
    app.limits.max_event_bytes = 10;
    app.limits.max_subscriptions_per_connection = 2;
    reload(&server, vec![app]);

    client.request("news", None).await;
    client.expect_refusal().await;
    client.trigger("client-x", "private-a", "x".repeat(11).into()).await;
    client.expect_refusal().await;
    server.rest().publish("private-a", "e", "0123456789").await;
    client.expect_event("e", "private-a", "0123456789").await;
    let event = serde_json::json!({"name": "e", "data": "0123456789x", "channels": ["private-a"]});
    server.rest().trigger(event).await.refused(413);
}

#[tokio::test]
async fn a_new_app_is_served_and_the_old_one_undisturbed() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    assert_eq!(server.refusal("/app/other-key?protocol=7").await, 4001);
    reload(&server, vec![demo_app(), other_app()]);
    connect_to_other(&server).await.subscribe("news").await;
    server.rest().publish("news", "e", "1").await;
    client.expect_event("e", "news", "1").await;
}

#[tokio::test]
async fn a_removed_or_disabled_app_closes_its_connections() {
    for (replacement, code) in [(None, 4001), (Some(AppConfig { enabled: false, ..other_app() }), 4003)] {
        let server = TestServer::with_config(|config| config.apps.push(other_app()));
        let mut ours = server.connect().await;
        let mut theirs = connect_to_other(&server).await;
        theirs.subscribe("news").await;
        reload(&server, [demo_app()].into_iter().chain(replacement).collect());
        let event = theirs.next_event().await;
        assert_eq!(event.event, "pusher:error");
        error_message(&event, Some(code));
        theirs.expect_close(code).await;
        assert_eq!(server.refusal("/app/other-key?protocol=7").await, code);
        ours.assert_silent().await;
    }
}

#[tokio::test]
async fn a_secret_is_rotated_without_a_reconnect() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let new = Credentials::new("new-key", "new-secret");
    let credential = Credential { key: new.key.clone(), secret: Secret::new(&new.secret) };
    let mut both = demo_app();
    both.credentials.push(credential.clone());
    reload(&server, vec![both]);
    client.subscribe("private-a").await;
    client.credentials = new.clone();
    client.subscribe("private-b").await;
    server.rest_as("new-key", "new-secret").publish("private-b", "e", "1").await;
    client.expect_event("e", "private-b", "1").await;

    reload(&server, vec![AppConfig { credentials: vec![credential], ..demo_app() }]);
    client.credentials = Credentials::default();
    client.request("private-c", None).await;
    client.expect_refusal().await;
    client.credentials = new;
    client.subscribe("private-c").await;
    server.rest().get("/apps/42/channels").send().await.refused(401);
    assert_eq!(server.refusal("/app/tw-demo-key?protocol=7").await, 4001);
}
