//! The message broker.

use super::look::mended_by_install;
use super::{Finding, Look};
use crate::base::terminal::count_of;
use crate::probe::broker::BrokerAddress;
use crate::resource::Resource;
use crate::settings::{Mode, Service};
use anyhow::Result;
use std::time::Duration;

/// A server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where CamCOPS's tasks wait, by Celery's own default.
const QUEUE: &str = "celery";
/// More than this wait only where the workers can't keep up.
const LONG: u32 = 100;

pub(crate) fn begin_login(look: &Look<'_>) -> Result<()> {
    let site = look.site;
    if !look.before {
        let endpoint = BrokerAddress::of(&site.host, site.settings(), &site.layout)?;
        look.early.broker.begin(async move { endpoint.round_trip_and(QUEUE, PATIENCE).await });
    }
    Ok(())
}

pub(crate) async fn check_login(look: &Look<'_>) -> Result<Finding> {
    let site = look.site;
    let mode = site.settings().broker.mode;
    if look.before && mode == Mode::Local {
        return Ok(Finding::not_applicable("install sets it up"));
    }
    let endpoint = match BrokerAddress::of(&site.host, site.settings(), &site.layout) {
        Ok(endpoint) => endpoint,
        Err(_) if look.before => {
            return Ok(Finding::not_applicable("its password does not exist yet"));
        }
        Err(why) => return Err(why),
    };
    let answered = match look.early.broker.take().await {
        Some(answered) => answered,
        None => endpoint.round_trip_and(QUEUE, PATIENCE).await,
    };
    Ok(match answered {
        Ok((answer, queue)) => {
            if let Some(queue) = queue {
                look.keep_queue(queue);
            }
            Finding::ok(format!("{answer} at {}", endpoint.address))
        }
        Err(why) if mode == Mode::External => Finding::failed(why.text, "camcops-provision wait --for broker"),
        Err(why) => Finding::for_install(match site.own_broker()?.unreadable {
            Some(stored) => {
                format!("this RabbitMQ does not start with the data of an earlier version in {stored} ({})", why.text)
            }
            None => why.text,
        }),
    })
}

pub(crate) async fn check_rights(look: &Look<'_>) -> Result<Vec<Finding>> {
    let pending = look
        .pending(|planned| match planned.change.resource {
            Resource::BrokerAccount(_) => true,
            Resource::Vhost(_) => planned.facets.iter().any(|facet| facet == "presence"),
            _ => false,
        })
        .await?;
    Ok(mended_by_install(pending, "the account can use its own vhost only"))
}

pub(crate) async fn check_timeout(look: &Look<'_>) -> Result<Finding> {
    let (_, plan) = look.plan().await?;
    let broker = &look.site.settings().broker;
    if broker.mode == Mode::External {
        return Ok(Finding::not_applicable("only the broker's administrator can see that"));
    }
    let wanted = broker.consumer_timeout_ms.get();
    let short = plan.changes.iter().find(|planned| {
        let facets = &planned.facets;
        matches!(planned.change.resource, Resource::Vhost(_)) && facets.iter().any(|facet| facet == "consumer_timeout")
    });
    let Some(short) = short else {
        return Ok(Finding::ok(format!("at least {wanted} ms")));
    };
    let now = short.change.before.facets();
    let now = now.and_then(|facets| facets.text("consumer_timeout"));
    let drop_in = look.site.layout.broker_drop_in();
    let is_written = !plan.changes.iter().any(|planned| planned.change.resource.name() == drop_in);
    Ok(Finding::failed(
        format!(
            "the running broker aborts a task after {}, and broker.consumer_timeout_ms is {wanted}",
            now.unwrap_or_default()
        ),
        if is_written { "systemctl restart rabbitmq-server" } else { "camcops-provision install" },
    ))
}

pub(crate) fn check_queue(look: &Look<'_>) -> Result<Finding> {
    let Some(queue) = look.queue() else {
        return Ok(Finding::not_applicable(
            "no worker has created the queue of this vhost yet, or broker.login was not checked",
        ));
    };
    look.measure("broker_tasks_waiting", None, queue.waiting.into());
    look.measure("broker_consumers", None, queue.consumers.into());
    let found =
        format!("{} waiting, {} connected", count_of(queue.waiting, "task"), count_of(queue.consumers, "worker"));
    let here = look.site.settings().services.wants(Service::Workers);
    Ok(match (queue.consumers, queue.waiting) {
        (0, _) if here => Finding::failed(found, "camcops-provision start workers"),
        (0, _) => Finding::warning(found, "camcops-provision start workers   # on the machine of the workers"),
        (_, LONG..) => Finding::warning(found, "camcops-provision logs workers --since '1 hour ago'"),
        _ => Finding::ok(found),
    })
}
