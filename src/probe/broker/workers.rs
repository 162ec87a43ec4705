//! A ping to the workers, as Celery's own control command sends it, without the seven seconds that Python needs for it.

use super::is_not_there;
use crate::base::text::encode_hex;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Where every worker listens for control messages.
const CONTROL: &str = "celery.pidbox";
/// Where it answers.
const REPLIES: &str = "reply.celery.pidbox";
/// Between two looks for an answer.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two pings: a worker that is just starting has not heard the one before.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether a worker with such a name answers in time; the others are not waited for.
pub(crate) async fn ping_workers(
    connection: &Connection,
    patience: Duration,
    is_it: impl Fn(&str) -> bool,
) -> lapin::Result<bool> {
    let until = Instant::now() + patience;
    let channel = connection.create_channel().await?;
    let ours = random_id();
    let queue = reply_queue(&channel, &ours).await?;
    let mut sent: Option<Instant> = None;
    while Instant::now() < until {
        if sent.is_none_or(|last| last.elapsed() >= AGAIN) {
            // The exchange is not declared here: no worker ever came if it is not there.
            match publish_ping(&channel, &ours).await {
                Err(why) if is_not_there(&why) => break,
                result => result?,
            }
            sent = Some(Instant::now());
        }
        match channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await {
            Ok(Some(message)) => {
                if names_in(&message.data).iter().any(|name| is_it(name)) {
                    return Ok(true);
                }
            }
            Ok(None) => sleep(PAUSE).await,
            Err(why) if is_not_there(&why) => break,
            Err(why) => return Err(why),
        }
    }
    Ok(false)
}

async fn reply_queue(channel: &Channel, ours: &str) -> lapin::Result<String> {
    let queue = format!("{ours}.{REPLIES}");
    channel
        .exchange_declare(
            REPLIES.into(),
            ExchangeKind::Direct,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let alone = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), alone, FieldTable::default()).await?;
    channel
        .queue_bind(
            queue.as_str().into(),
            REPLIES.into(),
            ours.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(queue)
}

async fn publish_ping(channel: &Channel, ours: &str) -> lapin::Result<()> {
    let message = json!({
        "method": "ping",
        "arguments": {},
        "destination": null,
        "pattern": null,
        "matcher": null,
        "ticket": random_id(),
        "reply_to": { "exchange": REPLIES, "routing_key": ours },
    });
    let mut headers = FieldTable::default();
    headers.insert("clock".into(), AMQPValue::LongLongInt(1));
    headers.insert("expires".into(), AMQPValue::LongLongInt(0));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers);
    channel
        .basic_publish(
            CONTROL.into(),
            "".into(),
            BasicPublishOptions::default(),
            message.to_string().as_bytes(),
            properties,
        )
        .await?
        .await?;
    Ok(())
}

/// `{"celery@host": {"ok": "pong"}}`
fn names_in(reply: &[u8]) -> BTreeSet<String> {
    let reply: serde_json::Value = serde_json::from_slice(reply).unwrap_or_default();
    let answers = reply.as_object().into_iter().flatten();
    answers.filter(|(_, answer)| answer["ok"] == "pong").map(|(name, _)| name.clone()).collect()
}

/// A name that nobody else has. It is no secret, so a clock does where there is no randomness.
fn random_id() -> String {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return format!("{:?}", std::time::SystemTime::now());
    }
    encode_hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pong_counts() {
        let names = |text: &str| -> Vec<String> { names_in(text.as_bytes()).into_iter().collect() };
        assert_eq!(names(r#"{"celery@one": {"ok": "pong"}, "celery@two": {"error": "no"}}"#), ["celery@one"]);
        assert!(names("[]").is_empty());
        assert!(names("not JSON").is_empty());
    }
}
