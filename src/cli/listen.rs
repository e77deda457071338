//! `listen`: a client that prints what a browser would receive.

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tidewire_protocol::{ChannelName, SigningKey, SocketId, auth};

use super::client::BaseUrl;
use super::credentials::{AppFlags, Credentials};
use super::{Done, Failure, print_line, runtime};

/// The most that a server can be configured to allow; what it does allow it says itself.
const MAX_CHANNEL_NAME_LENGTH: usize = 1024;
/// Events may be as large as the server's limit allows, which may be raised.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Private and presence channels are signed with the app's secret. Each line is channel, event and
data, separated by tabs; notices go to standard error. Ends with exit code 1 when the server
closes the connection.

Examples:
  tidewire listen my-channel private-orders presence-room
  tidewire listen my-channel --json | jq .data
  tidewire listen my-channel --count 1            wait for one event")]
pub struct ListenFlags {
    /// Channels to subscribe to
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Print the server's messages as they are, one JSON object a line, those of the protocol included
    #[arg(long)]
    json: bool,
    /// End after so many events
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// User id on presence channels
    #[arg(long, value_name = "ID", default_value = "tidewire-listen")]
    user_id: String,
    #[command(flatten)]
    app: AppFlags,
}

type Socket = FragmentCollector<TokioIo<Upgraded>>;

pub fn listen(flags: &ListenFlags) -> Done {
    let (config, credentials) = flags.app.credentials(None)?;
    let url = BaseUrl::find(flags.app.url.as_deref(), &config)?;
    runtime()?.block_on(async {
        let mut socket = connect(&url, &credentials).await?;
        follow(&mut socket, flags, &credentials).await
    })
}

async fn connect(url: &BaseUrl, app: &Credentials) -> anyhow::Result<Socket> {
    let target =
        format!("/app/{}?protocol=7&client=tidewire-cli&version={}", app.key, env!("CARGO_PKG_VERSION"));
    let request = url
        .request(Method::GET, &target)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_KEY, fastwebsockets::handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13")
        .body(Full::new(Bytes::new()))?;
    let mut response = url.connect().await?.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        bail!("no WebSocket there: {status} {}", String::from_utf8_lossy(&body).trim_end());
    }
    let upgraded = hyper::upgrade::on(&mut response).await?;
    let mut socket = WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client);
    socket.set_max_message_size(MAX_MESSAGE_BYTES);
    Ok(FragmentCollector::new(socket))
}

/// Subscribes and prints until the server closes or enough has been seen.
async fn follow(socket: &mut Socket, flags: &ListenFlags, app: &Credentials) -> Done {
    let mut seen = 0;
    while flags.count.is_none_or(|count| seen < count) {
        let text = match receive(socket).await? {
            Received::Text(text) => text,
            Received::Closed(why) => {
                return Err(Failure::Other(anyhow::anyhow!("closed by the server: {why}")));
            }
        };
        let message: Value =
            serde_json::from_str(&text).context("the server sent something that is not JSON")?;
        if flags.json {
            print_line(&text)?;
        }
        match message["event"].as_str().unwrap_or_default() {
            "pusher:connection_established" => {
                let socket_id = socket_id(&message)?;
                for channel in &flags.channels {
                    let subscribe = subscribe(socket_id, channel, &flags.user_id, app)?;
                    send(socket, &subscribe).await?;
                }
            }
            "pusher:ping" => send(socket, &json!({ "event": "pusher:pong" })).await?,
            name if name.starts_with("pusher") => notice(name, &message, flags.json),
            name => {
                seen += 1;
                if !flags.json {
                    print_line(&line(name, &message))?;
                }
            }
        }
    }
    // A clean end; what the server thinks of it does not matter any more.
    let _ = socket.write_frame(Frame::close(1000, b"")).await;
    Ok(())
}

enum Received {
    Text(String),
    Closed(String),
}

async fn receive(socket: &mut Socket) -> anyhow::Result<Received> {
    loop {
        let frame = socket.read_frame().await.context("the connection broke")?;
        match frame.opcode {
            OpCode::Text => return Ok(Received::Text(String::from_utf8_lossy(&frame.payload).into_owned())),
            OpCode::Close => return Ok(Received::Closed(close_reason(&frame.payload))),
            // Pings are answered by the library.
            _ => {}
        }
    }
}

fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason)),
        None => "without a code".to_owned(),
    }
}

async fn send(socket: &mut Socket, message: &Value) -> anyhow::Result<()> {
    let text = message.to_string().into_bytes();
    socket.write_frame(Frame::text(Payload::Owned(text))).await.context("the connection broke")
}

/// `data` is a string that holds JSON (protocol 1.3).
fn socket_id(message: &Value) -> anyhow::Result<SocketId> {
    let data: Value = serde_json::from_str(message["data"].as_str().unwrap_or_default())?;
    let text = data["socket_id"].as_str().context("the server sent no socket id")?;
    SocketId::parse(text).ok().flatten().with_context(|| format!("{text:?} is no socket id of Tidewire"))
}

fn subscribe(socket_id: SocketId, channel: &str, user_id: &str, app: &Credentials) -> anyhow::Result<Value> {
    let name = ChannelName::parse(channel, MAX_CHANNEL_NAME_LENGTH)?;
    let mut data = json!({ "channel": channel });
    if name.is_presence() {
        data["channel_data"] = json!(json!({ "user_id": user_id }).to_string());
    }
    if name.needs_auth() {
        let to_sign = auth::channel_string(socket_id, channel, data["channel_data"].as_str());
        let key: SigningKey = app.signing_key();
        data["auth"] = json!(format!("{}:{}", app.key, key.sign_hex(&[to_sign.as_bytes()])));
    }
    Ok(json!({ "event": "pusher:subscribe", "data": data }))
}

/// What the protocol says, for the person who watches.
fn notice(name: &str, message: &Value, is_shown_already: bool) {
    if is_shown_already {
        return;
    }
    let channel = message["channel"].as_str().unwrap_or_default();
    match name {
        "pusher_internal:subscription_succeeded" => eprintln!("subscribed to {channel}"),
        "pusher:error" => {
            let code = message["data"]["code"].as_u64().map_or_else(String::new, |code| format!("{code} "));
            eprintln!("error: {code}{}", message["data"]["message"].as_str().unwrap_or_default());
        }
        other => eprintln!("{other} {channel} {}", text_of(&message["data"])),
    }
}

fn line(name: &str, message: &Value) -> String {
    let channel = message["channel"].as_str().unwrap_or_default();
    // Data may hold line breaks; an event is one line.
    let data = text_of(&message["data"]).replace('\r', "").replace('\n', "\\n");
    format!("{channel}\t{name}\t{data}")
}

fn text_of(data: &Value) -> String {
    match data {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let message = json!({ "channel": "c", "data": "a\nb" });
        assert_eq!(line("e", &message), "c\te\ta\\nb");
    }

    #[test]
    fn a_close_is_told_with_its_code() {
        assert_eq!(close_reason(&[0x0f, 0xa1, b'n', b'o']), "4001 no");
        assert_eq!(close_reason(&[]), "without a code");
    }
}
