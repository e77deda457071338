//! The gate of the REST API: which app a request speaks for, and the proof that it may (4.4).
//!
//! Handlers take a [`Verified`]. Only this file makes one, so a forgotten check does not compile.

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::Guard;
use hyper::StatusCode;
use tidewire_protocol::http_api::{ApiError, Batch, Trigger, TriggerLimits};
use tidewire_protocol::http_auth::{self, ApiQuery, AuthFailure};

use crate::app::{App, Apps, Settings};
use crate::config::AppLimits;
use crate::http::respond::Refusal;

/// An app that a request names by its key. Nothing is proven yet.
#[derive(Debug)]
pub struct Claim<'r> {
    app: Arc<App>,
    auth_key: &'r str,
    query: &'r ApiQuery<'r>,
}

/// What the signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'r> {
    pub method: &'r str,
    /// Below the deployment prefix, as most SDKs sign it.
    pub path: &'r str,
    /// As it was sent.
    pub raw_path: &'r str,
    pub prefix: &'r str,
    pub now_unix_seconds: i64,
}

/// Input that the holder of the app's secret has signed.
#[derive(Debug)]
pub struct Verified<'r, T = ()> {
    pub app: &'r App,
    pub settings: Guard<Arc<Settings>>,
    pub query: &'r ApiQuery<'r>,
    pub input: T,
}

impl<'r> Claim<'r> {
    /// Finds the app by `auth_key`, rows 3 to 5 of 4.4. `app_id` is the one in the path, where there is one.
    pub fn find(apps: &Apps, app_id: Option<&str>, query: &'r ApiQuery<'r>) -> Result<Self, Refusal> {
        let auth_key = query.auth_key().ok_or_else(|| refuse(&AuthFailure::KeyMissing))?;
        let app = apps.by_key(auth_key).ok_or_else(|| refuse(&AuthFailure::KeyUnknown))?;
        match app_id {
            Some(id) if *id != *app.id && apps.by_id(id).is_none() => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("There is no app with the id {id}: the given auth_key belongs to app {}", app.id),
            )),
            Some(id) if *id != *app.id => Err(refuse(&AuthFailure::KeyOfOtherApp)),
            _ => Ok(Self { app, auth_key, query }),
        }
    }

    /// Checks version, time and signature, rows 6 to 8 and 10 of 4.4: before the body is read, so that nobody else
    /// than the holder of the secret makes the server keep one. The rest is in [`Signed::verify`].
    pub fn verify_head(&self, request: SignedRequest<'_>) -> Result<Signed<'_>, Refusal> {
        let settings = self.app.settings();
        // A reload may have taken the key away while the body was read.
        let key = settings.signing_key(self.auth_key).ok_or_else(|| refuse(&AuthFailure::KeyUnknown))?;
        let check = |path: &str| {
            let SignedRequest { method, now_unix_seconds, .. } = request;
            http_auth::verify_head(method, path, self.query, key, now_unix_seconds)
        };
        if let Err(failure) = check(request.path) {
            let is_signature = matches!(failure, AuthFailure::Signature { .. });
            if !(is_signature && request.other_paths().iter().any(|path| check(path).is_ok())) {
                return Err(refuse(&failure));
            }
        }
        Ok(Signed { app: &self.app, query: self.query })
    }
}

/// A request whose head is signed; its body may still be another.
#[derive(Debug)]
pub struct Signed<'r> {
    app: &'r App,
    query: &'r ApiQuery<'r>,
}

impl<'r> Signed<'r> {
    /// Checks the body and that the app is in use, rows 9 and 11 of 4.4.
    pub fn verify(self, body: &[u8]) -> Result<Verified<'r>, Refusal> {
        http_auth::verify_body(self.query, body).map_err(|failure| refuse(&failure))?;
        if !self.app.is_enabled() {
            return Err(Refusal::new(StatusCode::FORBIDDEN, format!("App {} is disabled", self.app.id)));
        }
        Ok(Verified { app: self.app, settings: self.app.settings(), query: self.query, input: () })
    }
}

impl<'r> SignedRequest<'r> {
    /// Other paths a client may have signed: the whole path it sent, or the one before a proxy cut the prefix
    /// off. Each still needs a valid signature, so trying them is safe (4.3).
    fn other_paths(&self) -> Vec<Cow<'r, str>> {
        let mut paths = Vec::new();
        if self.raw_path != self.path {
            paths.push(Cow::Borrowed(self.raw_path));
        }
        let prefixed = format!("{}{}", self.prefix, self.path);
        if prefixed != self.raw_path {
            paths.push(Cow::Owned(prefixed));
        }
        paths
    }
}

impl<'r> Verified<'r> {
    pub fn read_trigger<'b>(self, body: &'b [u8]) -> Result<Verified<'r, Trigger<'b>>, Refusal> {
        let input = Trigger::parse(body, &limits(&self.settings.limits)).map_err(bad_request)?;
        Ok(self.with(input))
    }

    pub fn read_batch<'b>(self, body: &'b [u8]) -> Result<Verified<'r, Batch<'b>>, Refusal> {
        let input = Batch::parse(body, &limits(&self.settings.limits)).map_err(bad_request)?;
        Ok(self.with(input))
    }

    /// The event of a legacy publish: named in the query, its data is the body (4.9).
    pub fn read_legacy<'b>(self, channel: &'b str, body: &[u8]) -> Result<Verified<'r, Trigger<'b>>, Refusal>
    where
        'r: 'b,
    {
        let limits = limits(&self.settings.limits);
        let input = Trigger::legacy(channel, self.query, body, &limits).map_err(bad_request)?;
        Ok(self.with(input))
    }

    fn with<T>(self, input: T) -> Verified<'r, T> {
        let Self { app, settings, query, input: () } = self;
        Verified { app, settings, query, input }
    }
}

impl<'r, T> Verified<'r, T> {
    /// The app and the input, for calls that wait: settings are not to be borrowed meanwhile.
    pub fn into_input(self) -> (&'r App, T) {
        (self.app, self.input)
    }
}

fn limits(limits: &AppLimits) -> TriggerLimits {
    TriggerLimits {
        max_channels: limits.max_channels_per_trigger,
        max_channel_name_length: limits.max_channel_name_length,
        max_event_name_length: limits.max_event_name_length,
        max_event_bytes: limits.max_event_bytes,
        max_batch_events: limits.max_batch_events,
    }
}

fn refuse(failure: &AuthFailure) -> Refusal {
    Refusal::new(status(failure.status()), failure.text())
}

pub fn bad_request(error: ApiError) -> Refusal {
    Refusal::new(status(error.status), error.text)
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_REQUEST)
}
