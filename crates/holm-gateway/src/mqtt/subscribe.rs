//! SUBSCRIBE and UNSUBSCRIBE: which filters are granted, and what then arrives.

use holm_model::wire::Subscription;
use holm_mqtt::{Granted, Qos, RequestId, Text};
use tokio::io::{AsyncRead, AsyncWrite};

use super::serve::Client;
use crate::backend::{Backend, Refusal};
use crate::metrics::End;
use crate::session::Subscriptions;

/// Filters that one client may hold: twice what every published subscription together needs
/// (`hub-device-protocols.md` §2.4).
const MAX_FILTERS: usize = 12;

/// A filter that a client holds, with what it means and at which quality of service it was granted.
pub(super) struct Held {
    filter: Text,
    subscription: Option<Subscription>,
    qos: Qos,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Client<'_, B, S> {
    /// Takes up the subscriptions of an earlier session; what they meant then they mean now.
    pub(super) fn resume(&mut self, filters: &[(String, u8)]) {
        for (filter, qos) in filters {
            let subscription = Subscription::parse(filter, &self.admission.identity).ok();
            let qos = if *qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            if let Ok(filter) = Text::try_from(filter.as_str()) {
                self.filters.push(Held {
                    filter,
                    subscription,
                    qos,
                });
            }
        }
        self.apply_subscriptions();
    }

    pub(super) async fn subscribe(&mut self, request: RequestId, wanted: Vec<holm_mqtt::Subscription>) {
        let granted: Vec<_> = wanted
            .into_iter()
            .map(|wish| self.grant(wish.filter, wish.qos))
            .collect();
        // First: while the backend is told, it may ask who listens.
        self.handle.set_subscriptions(self.subscriptions());
        if let Err(refusal) = self.tell_subscriptions().await {
            tracing::warn!(identity = %self.admission.identity, reason = %refusal, "subscriptions can't be kept; closing");
            self.close(End::Unavailable);
            return;
        }
        if let Err(error) = self.connection.session_mut().suback(request, &granted) {
            tracing::error!(%error, "a SUBSCRIBE was not answered");
        }
        self.apply_subscriptions();
    }

    fn grant(&mut self, filter: Text, qos: Qos) -> Granted {
        let identity = &self.admission.identity;
        let subscription = match Subscription::parse(filter.as_str(), identity) {
            Ok(subscription) => Some(subscription),
            Err(error) => {
                let published_space = filter.as_str().starts_with("devices/") || filter.as_str().starts_with('$');
                let foreign = matches!(error, holm_model::wire::TopicError::Foreign { .. });
                if !self.gateway.profile.grants_unknown_filters || foreign || !published_space {
                    tracing::info!(%identity, %error, "a subscription was refused");
                    return Granted::Failure;
                }
                None
            }
        };
        let held = self.filters.len();
        match self.filters.iter_mut().find(|held| held.filter == filter) {
            Some(held) => held.qos = qos,
            None if held >= MAX_FILTERS => {
                tracing::info!(%identity, filter = %filter, "a subscription was refused: the client holds {MAX_FILTERS} already");
                return Granted::Failure;
            }
            None => self.filters.push(Held {
                filter: filter.to_owned_text(),
                subscription,
                qos,
            }),
        }
        Granted::Qos(qos)
    }

    pub(super) async fn unsubscribe(&mut self, request: RequestId, filters: &[Text]) {
        let before = self.filters.len();
        self.filters.retain(|held| !filters.contains(&held.filter));
        // Clients also give up what they never had: nobody has to learn of that.
        if self.filters.len() != before {
            self.apply_subscriptions();
            if let Err(refusal) = self.tell_subscriptions().await {
                tracing::warn!(identity = %self.admission.identity, reason = %refusal, "subscriptions can't be kept; closing");
                self.close(End::Unavailable);
                return;
            }
        }
        if let Err(error) = self.connection.session_mut().unsuback(request) {
            tracing::error!(%error, "an UNSUBSCRIBE was not answered");
        }
    }

    async fn tell_subscriptions(&mut self) -> Result<(), Refusal> {
        let filters = || {
            self.filters
                .iter()
                .map(|held| (held.filter.as_str().to_owned(), held.qos as u8))
                .collect()
        };
        let kept = (!self.clean).then(filters);
        self.gateway
            .backend
            .subscribed(self.handle.id(), &self.admission, self.subscriptions(), kept)
            .await
    }

    /// What was granted begins to arrive.
    fn apply_subscriptions(&mut self) {
        let all = self.subscriptions();
        self.handle.set_subscriptions(all);
        self.gateway.directory.subscribed();
        let filters = &self.filters;
        self.deliveries.subscribe(all, |wanted| {
            let of_kind = filters
                .iter()
                .filter(|held| held.subscription.map(kind) == Some(wanted));
            of_kind
                .map(|held| held.qos)
                .max_by_key(|qos| *qos as u8)
                .unwrap_or(Qos::AtLeastOnce)
        });
    }

    fn subscriptions(&self) -> Subscriptions {
        self.filters
            .iter()
            .filter_map(|held| held.subscription)
            .fold(Subscriptions::NONE, |all, one| all.with(kind(one)))
    }
}

const fn kind(subscription: Subscription) -> Subscriptions {
    match subscription {
        Subscription::CloudToDevice => Subscriptions::CLOUD_TO_DEVICE,
        Subscription::Inputs => Subscriptions::INPUTS,
        Subscription::Methods => Subscriptions::METHODS,
        Subscription::TwinResponses => Subscriptions::TWIN_RESPONSES,
        Subscription::DesiredPatches => Subscriptions::DESIRED_PROPERTIES,
        Subscription::CertificateResponses => Subscriptions::CERTIFICATE_RESPONSES,
        // It exists and nothing arrives there.
        Subscription::ModuleCloudToDevice => Subscriptions::NONE,
    }
}
