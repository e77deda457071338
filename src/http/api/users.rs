//! What an app does to its signed-in users (4.8).

use super::verify::Verified;
use crate::http::respond::{self, Reply};

/// Closes every connection that signed in as the user; that there is none is no error.
pub fn terminate(request: &Verified<'_>, user_id: &str) -> Reply {
    let closed = request.app.terminate_user(user_id);
    tracing::debug!(target: "tidewire::http", app_id = &*request.app.id, closed, "terminated a user");
    respond::empty_object()
}
