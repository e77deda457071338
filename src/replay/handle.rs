//! The place of a server's log, which is opened when the first app asks for it.

use std::sync::{Arc, OnceLock};

use super::Replay;

/// Cheap to clone; all clones see the log once it is open.
#[derive(Clone, Debug, Default)]
pub struct ReplayHandle(Arc<OnceLock<Arc<Replay>>>);

impl ReplayHandle {
    /// `None` while no app stores anything.
    pub fn get(&self) -> Option<&Arc<Replay>> {
        self.0.get()
    }

    /// The log that is open, or what `open` gives.
    pub fn get_or_open(
        &self,
        open: impl FnOnce() -> anyhow::Result<Arc<Replay>>,
    ) -> anyhow::Result<&Arc<Replay>> {
        if let Some(replay) = self.0.get() {
            return Ok(replay);
        }
        let replay = open()?;
        Ok(self.0.get_or_init(|| replay))
    }
}

impl From<Arc<Replay>> for ReplayHandle {
    fn from(replay: Arc<Replay>) -> Self {
        Self(Arc::new(OnceLock::from(replay)))
    }
}
