//! The token of an event stream: proof that the server gave out its socket id.
//!
//! A channel is signed for one socket id, and a stream has none before it is opened. So a page fetches one first,
//! lets its backend sign for it, and opens the stream with the token that came with it. Nothing is remembered: the
//! token carries its socket id and the time of its issue under a signature that every node can check.

use tidewire_protocol::{SigningKey, SocketId};

use crate::app::{App, Settings};

/// How long a token opens streams. An `EventSource` uses it again whenever it reconnects.
pub const LIFETIME_SECONDS: i64 = 2 * 60 * 60;
/// How far the clocks of two nodes may be apart.
const MAX_SKEW_SECONDS: i64 = 60;

/// What the secret signs to become the key of tokens. No other text that is signed with a secret looks like it:
/// those of channels and users have a colon, those of requests have lines, webhooks are JSON.
const DOMAIN: &[u8] = b"tidewire event stream token 1";

/// Why a token opens no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("The token is not one of this application: fetch a new one with POST")]
    Forged,
    #[error("The token has expired: fetch a new one with POST")]
    Expired,
}

/// The token of a socket id, made with the app's first secret.
pub fn issue(app: &App, socket_id: SocketId, now_unix_seconds: i64) -> Option<String> {
    let settings = app.settings();
    let key = keys(&settings).next()?;
    let signature = key.sign_hex(&[&signed(app, socket_id, now_unix_seconds)]);
    Some(format!("{socket_id}.{now_unix_seconds}.{signature}"))
}

/// The socket id of a token that any of the app's secrets made: one may be on its way out.
pub fn verify(app: &App, token: &str, now_unix_seconds: i64) -> Result<SocketId, TokenError> {
    let (claim, signature) = token.rsplit_once('.').ok_or(TokenError::Forged)?;
    let (socket_id, issued) = claim.rsplit_once('.').ok_or(TokenError::Forged)?;
    let socket_id: SocketId = socket_id.parse().map_err(|_| TokenError::Forged)?;
    let issued: i64 = issued.parse().map_err(|_| TokenError::Forged)?;
    let signed = signed(app, socket_id, issued);
    if !keys(&app.settings()).any(|key| key.verify_hex(&[&signed], signature)) {
        return Err(TokenError::Forged);
    }
    let age = now_unix_seconds.saturating_sub(issued);
    if (-MAX_SKEW_SECONDS..LIFETIME_SECONDS).contains(&age) {
        Ok(socket_id)
    } else {
        Err(TokenError::Expired)
    }
}

fn keys(settings: &Settings) -> impl Iterator<Item = SigningKey> {
    let secrets = settings.credentials.iter().filter_map(|credential| settings.signing_key(&credential.key));
    secrets.map(|secret| SigningKey::new(&secret.sign_hex(&[DOMAIN])))
}

/// Of the app, too: two apps may share a secret.
fn signed(app: &App, socket_id: SocketId, issued: i64) -> Vec<u8> {
    format!("{}\n{socket_id}\n{issued}", app.id).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::app::Apps;
    use crate::clock::Clock;
    use crate::config::{AppConfig, Credential, Secret};
    use crate::replay::ReplayHandle;
    use crate::telemetry::metrics::Metrics;

    const NOW: i64 = 1_700_000_000;

    fn apps(configs: Vec<AppConfig>) -> Apps {
        Apps::new(
            configs,
            Arc::from([]),
            Arc::new(Metrics::new()),
            Clock::default(),
            ReplayHandle::default(),
            None,
        )
    }

    fn demo() -> AppConfig {
        AppConfig::new("42", "key", "secret")
    }

    fn socket_id() -> SocketId {
        "1234.5678".parse().unwrap()
    }

    #[test]
    fn a_token_opens_streams_of_its_app_until_it_expires() {
        let apps = apps(vec![demo(), AppConfig::new("43", "other", "secret")]);
        let app = apps.by_id("42").unwrap();
        let token = issue(&app, socket_id(), NOW).unwrap();
        assert_eq!(verify(&app, &token, NOW), Ok(socket_id()));
        assert_eq!(verify(&app, &token, NOW - MAX_SKEW_SECONDS), Ok(socket_id()));
        assert_eq!(verify(&app, &token, NOW - MAX_SKEW_SECONDS - 1), Err(TokenError::Expired));
        assert_eq!(verify(&app, &token, NOW + LIFETIME_SECONDS - 1), Ok(socket_id()));
        assert_eq!(verify(&app, &token, NOW + LIFETIME_SECONDS), Err(TokenError::Expired));
        let other = apps.by_id("43").unwrap();
        assert_eq!(verify(&other, &token, NOW), Err(TokenError::Forged));
    }

    #[test]
    fn every_other_text_is_forged() {
        let apps = apps(vec![demo()]);
        let app = apps.by_id("42").unwrap();
        let token = issue(&app, socket_id(), NOW).unwrap();
        let (claim, signature) = token.rsplit_once('.').unwrap();
        let channel_like = SigningKey::new("secret").sign_hex(&[&signed(&app, socket_id(), NOW)]);
        for text in [
            String::new(),
            "...".to_owned(),
            claim.to_owned(),
            format!("{claim}."),
            format!("1.{token}"),
            format!("1234.5679.{NOW}.{signature}"),
            format!("1234.5678.{}.{signature}", NOW + 1),
            format!("{claim}.{channel_like}"),
            token.replace('a', "é"),
        ] {
            assert_eq!(verify(&app, &text, NOW), Err(TokenError::Forged), "{text}");
        }
    }

    #[test]
    fn a_token_outlives_the_rotation_of_its_secret() {
        let apps = apps(vec![demo()]);
        let app = apps.by_id("42").unwrap();
        let token = issue(&app, socket_id(), NOW).unwrap();
        let mut config = demo();
        config.credentials.insert(0, Credential { key: "new".to_owned(), secret: Secret::new("new-secret") });
        apps.reload(vec![config.clone()]);
        assert_eq!(verify(&app, &token, NOW), Ok(socket_id()));
        config.credentials.truncate(1);
        apps.reload(vec![config]);
        assert_eq!(verify(&app, &token, NOW), Err(TokenError::Forged));
    }
}
