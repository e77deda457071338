//! What an app does to its signed-in users (4.8).

use super::link_error;
use super::verify::Verified;
use crate::http::respond::{self, Refusal, Reply};

/// Closes every connection that signed in as the user; that there is none is no error.
pub async fn terminate(request: &Verified<'_>, user_id: &str) -> Result<Reply, Refusal> {
    let done = request.app.terminate_user(user_id).await;
    done.map_err(|error| link_error::refusal(&error, "nothing is certain"))?;
    Ok(respond::empty_object())
}
