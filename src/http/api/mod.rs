//! The REST API (section 4): from a route to its answer, past the one gate of [`verify`].

mod deliveries;
mod history;
mod link_error;
mod publish;
mod read;
mod store_error;
mod users;
mod verify;

use std::borrow::Cow;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use tidewire_protocol::http_auth::ApiQuery;

use self::verify::{Claim, SignedRequest};
use super::body::{self, BoxError};
use super::respond::{Refusal, Reply};
use super::routes::Call;
use crate::node::Node;

/// Answers a call. `path` is below the deployment prefix.
pub async fn answer<B>(
    node: &Node,
    app_id: Option<&str>,
    call: Call<'_>,
    path: &str,
    head: &Parts,
    body: B,
) -> Result<Reply, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let max_bytes = node.config.max_request_body_bytes;
    let query = ApiQuery::parse(head.uri.query().unwrap_or(""));
    let claim = match claim(node, app_id, &query) {
        Ok(claim) => claim,
        Err(refusal) => {
            body::discard(body, &head.headers, max_bytes).await;
            return Err(refusal);
        }
    };
    let signed = claim.verify_head(SignedRequest {
        method: head.method.as_str(),
        path,
        raw_path: head.uri.path(),
        prefix: &node.config.path_prefix,
        now_unix_seconds: node.clock.unix_seconds(),
    });
    let signed = match signed {
        Ok(signed) => signed,
        Err(refusal) => {
            body::discard(body, &head.headers, max_bytes).await;
            return Err(refusal);
        }
    };
    let body = body::read(body, &head.headers, max_bytes).await?;
    let request = signed.verify(&body)?;
    match call {
        Call::Trigger => publish::trigger(node, request.read_trigger(&body)?, &head.headers).await,
        Call::Batch => publish::batch(node, request.read_batch(&body)?, &head.headers).await,
        Call::LegacyTrigger { channel } => {
            let channel = decoded(channel)?;
            publish::legacy(node, request.read_legacy(&channel, &body)?, &head.headers).await
        }
        Call::Channels => read::channels(&request).await,
        Call::Channel { channel } => read::channel(&request, &decoded(channel)?).await,
        Call::ChannelUsers { channel } => read::channel_users(&request, &decoded(channel)?).await,
        Call::History { channel } => history::read(request, &decoded(channel)?).await,
        Call::Purge { channel } => history::purge(request, &decoded(channel)?).await,
        Call::HistoryState { channel } => history::state(request, &decoded(channel)?).await,
        Call::LegacyStats { channel } => read::legacy_stats(&request, &decoded(channel)?).await,
        Call::Connections => read::connections(&request).await,
        Call::TerminateUser { user_id } => users::terminate(&request, &decoded(user_id)?).await,
    }
}

fn claim<'r>(node: &Node, app_id: Option<&str>, query: &'r ApiQuery<'r>) -> Result<Claim<'r>, Refusal> {
    let app_id = app_id.map(decoded).transpose()?;
    Claim::find(&node.apps, app_id.as_deref(), query)
}

/// A name out of the path. SDKs put channel names there raw or escaped (4.7).
fn decoded(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "The path is not UTF-8 after percent-decoding"))
}
