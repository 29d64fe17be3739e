//! Which service links are taken, and for how long: a link needs a token that opens it, and lives as long as there is one.

use holm_amqp::performative::{Attach, SenderSettleMode, Target};
use holm_amqp::{Acceptance, AmqpError, Connection, LinkId, Role, condition};
use holm_model::Timestamp;

use super::super::refusals;
use super::address::ServiceAddress;
use super::event_link::EventLink;
use super::links::{Link, Node, SEND_WINDOW, ServiceLinks};
use super::notice_link::NoticeLink;
use super::{errors, position};
use crate::backend::Refusal;
use crate::profile::CLOCK_SKEW;
use crate::service::{EventHub, PartitionRequest, ReadRefusal, Service, not_here};

/// The largest delivery with a message to a device; what it may really have is less, and told with its outcome.
const MAX_DELIVERY: u64 = 256 * 1024;
/// The owner level of a reader.
const EPOCH: &str = "com.microsoft:epoch";
/// What a reader calls itself.
const RECEIVER_NAME: &str = "com.microsoft:receiver-name";

impl<B: Service> ServiceLinks<B> {
    /// Answers the attach of a link. `tokens` are those that were put on the connection, or given in SASL.
    pub(crate) fn attach(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        (attach, address): (&Attach, &ServiceAddress),
        tokens: &[&str],
    ) {
        let attached = if B::SERVES_BACK_ENDS {
            self.try_attach(connection, link, (attach, address), tokens)
        } else {
            Err(errors::of_refusal(&not_here()))
        };
        if let Err(error) = attached {
            tracing::debug!(%error, "a service link was refused");
            connection.refuse_link(link, error);
        }
    }

    fn try_attach(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        (attach, address): (&Attach, &ServiceAddress),
        tokens: &[&str],
    ) -> Result<(), AmqpError> {
        let event_hub = self.backend.event_hub();
        let name = event_hub.as_ref().map_or("", |event_hub| event_hub.name.as_str());
        let paths = address.paths(name);
        let ends = self.permit(&paths, tokens).map_err(|why| errors::of_refusal(&why))?;
        let mut answer = acceptance(attach);
        let node = match (address, attach.role) {
            (ServiceAddress::CloudToDevice, _) => {
                answer.window = if self.is_choked { 0 } else { SEND_WINDOW };
                answer.max_message_size = Some(MAX_DELIVERY);
                Node::CloudToDevice
            }
            (ServiceAddress::Notices(kind), _) => {
                let reader = self.backend.open_notices(*kind);
                let reader = reader.map_err(|why| errors::of_refusal(&why))?;
                if answer.snd_settle_mode == SenderSettleMode::Mixed {
                    answer.snd_settle_mode = SenderSettleMode::Unsettled;
                }
                Node::Notices(NoticeLink::new(*kind, reader))
            }
            (ServiceAddress::Redirect { rest }, _) => {
                let event_hub = event_hub.ok_or_else(no_event_hub)?;
                connection.accept_link(link, answer);
                connection.detach(link, true, Some(errors::redirect(&event_hub, rest)));
                return Ok(());
            }
            (ServiceAddress::Management { event_hub: named }, role) => {
                check_name(event_hub.as_ref(), named.as_deref())?;
                match role {
                    Role::Sender => Node::Questions,
                    Role::Receiver => Node::Answers {
                        reply_to: attach.target.as_ref().and_then(|target| target.address.clone()),
                    },
                }
            }
            (ServiceAddress::Partition { .. }, _) => {
                answer = EventLink::<B::Events>::acceptance(attach);
                let request = request(attach, address)?;
                let reader = self.backend.open_partition(&request);
                let reader = reader.map_err(|refusal| errors::of_read(&refusal))?;
                Node::Events(Box::new(EventLink::new(reader, request.partition, attach)))
            }
            (ServiceAddress::Produce, _) => {
                let text =
                    "events come from devices; connect as one, or send messages to devices at `/messages/devicebound`";
                return Err(AmqpError::new(condition::NOT_ALLOWED, text));
            }
        };
        // Before the answer, which may tell of credit at once.
        self.links.insert(link, Link { node, paths, ends });
        connection.accept_link(link, answer);
        Ok(())
    }

    /// The latest end of the tokens that open one of the paths.
    fn permit(&self, paths: &[String], tokens: &[&str]) -> Result<Timestamp, Refusal> {
        let mut refusal = Refusal::NotAuthorized(
            "no token of a shared access policy was given; put one at `$cbs` first, or log in by SASL PLAIN".to_owned(),
        );
        let mut latest = None;
        for token in tokens {
            for path in paths {
                match self.backend.permit_service(token, path) {
                    Ok(ends) => latest = latest.max(Some(ends)),
                    Err(why) => refusal = why,
                }
            }
        }
        latest.ok_or(refusal)
    }

    /// When [`ServiceLinks::expire`] wants to be called next.
    #[must_use]
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        if !B::SERVES_BACK_ENDS {
            return None;
        }
        self.links.values().map(|link| with_skew(link.ends)).min()
    }

    /// Detaches the links whose token has ended, unless another one of the connection opens them.
    pub(crate) fn expire(&mut self, connection: &mut Connection, now: Timestamp, tokens: &[&str]) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        let ended = self.links.iter().filter(|(_, link)| with_skew(link.ends) <= now);
        let ended = ended.map(|(id, _)| *id).collect();
        let why = "the token that opened this link has ended; put a new one at `$cbs` before it does";
        self.permit_again(connection, now, tokens, (ended, why));
    }

    /// Detaches the links that no token of the connection opens any more: policies have changed.
    pub(crate) fn check_again(&mut self, connection: &mut Connection, now: Timestamp, tokens: &[&str]) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        let all = self.links.keys().copied().collect();
        let why = "the policy whose token opened this link was deleted, or lacks the permission or the key now";
        self.permit_again(connection, now, tokens, (all, why));
    }

    fn permit_again(
        &mut self,
        connection: &mut Connection,
        now: Timestamp,
        tokens: &[&str],
        (links, why): (Vec<LinkId>, &str),
    ) {
        for id in links {
            let permitted = self.links.get(&id).map(|link| self.permit(&link.paths, tokens));
            match (permitted, self.links.get_mut(&id)) {
                (Some(Ok(ends)), Some(link)) if with_skew(ends) > now => link.ends = ends,
                _ => self.detach(connection, id, refusals::error(condition::UNAUTHORIZED_ACCESS, why)),
            }
        }
    }
}

/// A link as the peer wants it, with both ends written out: `azure-eventhub` reads them by position.
pub(super) fn acceptance(attach: &Attach) -> Acceptance {
    let mut answer = Acceptance::of(attach);
    answer
        .source
        .get_or_insert_with(|| Box::new(holm_amqp::performative::Source::at(None)));
    answer.target.get_or_insert_with(|| Box::new(Target::at(None)));
    answer
}

/// What a reader of events asks for.
fn request(attach: &Attach, address: &ServiceAddress) -> Result<PartitionRequest, AmqpError> {
    let ServiceAddress::Partition {
        event_hub,
        group,
        partition,
    } = address
    else {
        return Err(no_event_hub());
    };
    let number = partition.parse().map_err(|_| {
        let shown: String = partition.chars().take(40).collect();
        let refusal = ReadRefusal::NoPartition(format!("the partition is `{shown}`; give a number"));
        errors::of_read(&refusal)
    })?;
    let filters = attach.source.as_ref().map(|source| &source.filter);
    let position = filters.map_or(Ok(crate::service::EventPosition::Earliest), position::event_position)?;
    let owner_level = match attach.properties.get(EPOCH) {
        None | Some(holm_amqp::Value::Null) => None,
        Some(value) => Some(value.as_i64().ok_or_else(|| {
            let kind = value.kind();
            AmqpError::new(condition::INVALID_FIELD, format!("`{EPOCH}` is a {kind}; give a long"))
        })?),
    };
    let name = attach.properties.get(RECEIVER_NAME).and_then(holm_amqp::Value::as_str);
    let name: String = name.unwrap_or(attach.name.as_str()).chars().take(100).collect();
    Ok(PartitionRequest {
        event_hub: event_hub.clone(),
        group: group.clone(),
        partition: number,
        position,
        owner_level,
        reader: name,
    })
}

/// Questions may be asked without the Event Hub's name; where it stands it must be right.
fn check_name(event_hub: Option<&EventHub>, named: Option<&str>) -> Result<(), AmqpError> {
    let event_hub = event_hub.ok_or_else(no_event_hub)?;
    match named {
        Some(named) if !named.eq_ignore_ascii_case(&event_hub.name) => {
            let text = format!("the messaging entity `{named}` could not be found");
            Err(refusals::error(condition::NOT_FOUND, text))
        }
        _ => Ok(()),
    }
}

fn no_event_hub() -> AmqpError {
    refusals::error(condition::NOT_FOUND, "this node has no Event Hub")
}

fn with_skew(ends: Timestamp) -> Timestamp {
    ends.plus_millis(i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(i64::MAX))
}
