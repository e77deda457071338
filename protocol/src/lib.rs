//! Pusher Channels protocol 7 without sockets, clocks or tasks.
//!
//! Bytes and text come in, values and text go out. The server crate owns every socket and every timer, so
//! each rule of the protocol can be tested here with a plain function call. Section numbers in comments
//! refer to the protocol specification of this project.

pub mod auth;
pub mod channel_name;
pub mod data_token;
mod duration;
pub mod error;
pub mod frame;
pub mod history;
pub mod http_api;
pub mod http_auth;
pub mod identity;
mod json;
pub mod message;
pub mod position;
pub mod replay;
pub mod server_message;
pub mod socket_id;

pub use auth::SigningKey;
pub use channel_name::{Access, ChannelName, NameError, ValidChannel};
pub use data_token::DataToken;
pub use error::{CloseCode, NoticeCode, Refusal, Rejection, Retry};
pub use http_api::{ApiError, Batch, Info, Trigger, TriggerLimits};
pub use http_auth::{ApiQuery, AuthFailure};
pub use identity::{
    ConnectionOverrides, Member, MemberError, MemberLimits, Overrides, OverridesError, UserData,
    UserDataError,
};
pub use message::{ClientMessage, MessageError, Subscribe};
pub use position::{Epoch, Position};
pub use replay::{ReplayError, ReplayRequest};
pub use socket_id::{InvalidSocketId, SocketId};
