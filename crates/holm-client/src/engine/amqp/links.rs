//! The links of an identity: which there are, with what credit, and where they go. `hub-device-protocols.md` §3.3.

use holm_amqp::message::MessageId;
use holm_amqp::{Connection, Fields, LinkId, NewLink, OpenError, SessionId, Symbol, Text, Value};
use holm_model::wire::{amqp, percent};
use holm_model::{Identity, Timestamp};

use crate::options::{Interests, Options};

/// Messages that may wait for the application's verdict on one link: as many as over MQTT.
const MESSAGES: u32 = 256;
/// Method calls that may wait for the application; further ones wait in the node above.
const CALLS: u32 = 64;
/// Twin answers and changes of desired properties that may wait for the application.
const TWIN_NEWS: u32 = 256;
/// What links may bring before they are read, and room for what is told of the links themselves. The outcomes of what was
/// sent come on top.
pub(super) const MOST_NEWS: usize = (2 * MESSAGES + CALLS + TWIN_NEWS + 64) as usize;

const API_VERSION: &str = "2021-04-12";

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Telemetry,
    CloudToDevice,
    Inputs,
    /// Calls, and their answers.
    MethodCalls,
    MethodAnswers,
    /// Requests, and their answers with the changes of desired properties.
    TwinRequests,
    TwinNews,
}

impl Purpose {
    /// What a set of interests needs.
    pub(super) fn of(interests: Interests) -> impl Iterator<Item = Self> {
        [
            (true, Self::Telemetry),
            (interests.methods, Self::MethodCalls),
            (interests.methods, Self::MethodAnswers),
            (interests.desired_properties, Self::TwinRequests),
            (interests.desired_properties, Self::TwinNews),
            (interests.cloud_to_device, Self::CloudToDevice),
            (interests.inputs, Self::Inputs),
        ]
        .into_iter()
        .filter_map(|(is_wanted, purpose)| is_wanted.then_some(purpose))
    }

    /// Whether an identity is of use without it: what it brings is then missing.
    pub(super) const fn is_dispensable(self) -> bool {
        matches!(self, Self::CloudToDevice | Self::Inputs)
    }

    /// Whether it stays when nobody is interested any more: the twin is read by whoever wants none of its changes, too, and
    /// calls that came before are answered.
    const fn is_lasting(self) -> bool {
        matches!(self, Self::TwinRequests | Self::TwinNews | Self::MethodAnswers)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::CloudToDevice => "devicebound",
            Self::Inputs => "inputs",
            Self::MethodCalls | Self::MethodAnswers => "methods",
            Self::TwinRequests | Self::TwinNews => "twin",
        }
    }

    fn address(self, identity: &Identity) -> Text {
        let mut address = format!("/devices/{}", percent::encode(identity.device.as_str()));
        if let Some(module) = &identity.module {
            address = format!("{address}/modules/{}", percent::encode(module.as_str()));
        }
        let node = match self {
            Self::Telemetry | Self::Inputs => "messages/events",
            Self::CloudToDevice => "messages/devicebound",
            Self::MethodCalls | Self::MethodAnswers => "methods/devicebound",
            Self::TwinRequests | Self::TwinNews => "twin",
        };
        Text::from(format!("{address}/{node}"))
    }

    const fn is_sender(self) -> bool {
        matches!(self, Self::Telemetry | Self::MethodAnswers | Self::TwinRequests)
    }

    /// Deliveries that come without an outcome of their own to wait for: the credit is given by hand, again when the
    /// application has what came.
    pub(super) const fn credit(self) -> u32 {
        match self {
            Self::MethodCalls => CALLS,
            Self::TwinNews => TWIN_NEWS,
            _ => 0,
        }
    }
}

#[derive(Debug)]
struct Known {
    purpose: Purpose,
    link: LinkId,
    is_attached: bool,
    /// Messages that the application has and has said nothing about.
    held: usize,
    /// Nobody is interested any more.
    is_leaving: bool,
}

/// The links of one session.
#[derive(Debug)]
pub(super) struct Links {
    properties: Fields,
    pairs: String,
    all: Vec<Known>,
}

impl Links {
    pub(super) fn new(options: &Options) -> Self {
        let mut properties = Fields::new()
            .with(Symbol::from_static(amqp::CLIENT_VERSION), options.user_agent.as_str())
            .with(Symbol::from_static(amqp::API_VERSION), API_VERSION);
        if let Some(chain) = &options.auth_chain {
            properties.push(Symbol::from_static(amqp::AUTH_CHAIN), chain.as_str());
        }
        let mut bits = [0; 16];
        if getrandom::fill(&mut bits).is_err() {
            // It tells the pairs of one session apart from nothing but those of earlier sessions: the time does too.
            let now = Timestamp::from(options.clock.now()).unix_millis();
            bits = i128::from(now).to_be_bytes();
        }
        Self {
            properties,
            pairs: MessageId::Uuid(bits).to_string(),
            all: Vec::new(),
        }
    }

    /// Attaches a link that is not there; one that was to go stays.
    pub(super) fn attach(
        &mut self,
        connection: &mut Connection,
        session: SessionId,
        purpose: Purpose,
        identity: &Identity,
    ) -> Result<(), OpenError> {
        if let Some(known) = self.all.iter_mut().find(|known| known.purpose == purpose) {
            if std::mem::take(&mut known.is_leaving) {
                connection.set_window(known.link, MESSAGES);
            }
            return Ok(());
        }
        let (name, address) = (Text::from_static(purpose.name()), purpose.address(identity));
        let window = if purpose.credit() > 0 { 0 } else { MESSAGES };
        let mut new = if purpose.is_sender() {
            NewLink::sender(name, address)
        } else {
            NewLink::receiver(name, address, window)
        };
        new.properties = self.properties.clone();
        if !matches!(purpose, Purpose::Telemetry | Purpose::CloudToDevice | Purpose::Inputs) {
            let pair = format!("{}:{}", purpose.name(), self.pairs);
            new.properties
                .push(Symbol::from_static(amqp::CHANNEL_CORRELATION_ID), Value::from(pair));
        }
        let link = connection.attach(session, new)?;
        self.all.push(Known {
            purpose,
            link,
            is_attached: false,
            held: 0,
            is_leaving: false,
        });
        Ok(())
    }

    /// Gives a link up, as soon as the application has said what became of all that it brought: with the link the node above
    /// would take back what is not settled, and bring it again.
    pub(super) fn leave(&mut self, connection: &mut Connection, purpose: Purpose) {
        let place = self.all.iter().position(|known| known.purpose == purpose);
        let Some((index, known)) = place.and_then(|index| Some((index, self.all.get_mut(index)?))) else {
            return;
        };
        if purpose.is_lasting() {
            return;
        }
        if known.held > 0 {
            known.is_leaving = true;
            connection.set_window(known.link, 0);
        } else {
            connection.detach(self.all.swap_remove(index).link, true, None);
        }
    }

    /// The application has a message.
    pub(super) fn hold(&mut self, link: LinkId) {
        if let Some(known) = self.all.iter_mut().find(|known| known.link == link) {
            known.held += 1;
        }
    }

    /// The application has said what became of a message.
    pub(super) fn release(&mut self, connection: &mut Connection, link: LinkId) {
        let Some(known) = self.all.iter_mut().find(|known| known.link == link) else {
            return;
        };
        known.held = known.held.saturating_sub(1);
        if known.is_leaving {
            let purpose = known.purpose;
            self.leave(connection, purpose);
        }
    }

    /// A link was taken by the node above; which it is.
    pub(super) fn attached(&mut self, link: LinkId) -> Option<Purpose> {
        let known = self.all.iter_mut().find(|known| known.link == link)?;
        known.is_attached = true;
        Some(known.purpose)
    }

    /// A link is gone; which it was, and whether it had been taken.
    pub(super) fn remove(&mut self, link: LinkId) -> Option<(Purpose, bool)> {
        let index = self.all.iter().position(|known| known.link == link)?;
        let known = self.all.swap_remove(index);
        Some((known.purpose, known.is_attached))
    }

    /// The link of a purpose that the node above has taken.
    pub(super) fn standing(&self, purpose: Purpose) -> Option<LinkId> {
        let known = self.all.iter().find(|known| known.purpose == purpose)?;
        known.is_attached.then_some(known.link)
    }

    pub(super) fn purpose(&self, link: LinkId) -> Option<Purpose> {
        let known = self.all.iter().find(|known| known.link == link)?;
        Some(known.purpose)
    }

    /// Whether all of them stand.
    pub(super) fn all_stand(&self) -> bool {
        self.all.iter().all(|known| known.is_attached)
    }
}
