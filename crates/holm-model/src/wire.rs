//! How IoT Hub spells things on MQTT, AMQP and HTTPS: pure text in, values out, and back.
//!
//! ```text
//! CONNECT    username::UserName      hub.test/dev1/?api-version=2021-04-12&DeviceClientType=…
//! SUBSCRIBE  Subscription            devices/dev1/messages/devicebound/#
//! PUBLISH    ClientTopic  (up)       devices/dev1/messages/events/{bag}
//!            ServerTopic  (down)     $iothub/twin/res/200/?$rid=7
//!            bag                     %24.mid=m-1&k=v
//! AMQP       address                 amqps://hub.test/devices/dev1/messages/events
//! HTTPS      http                    iothub-messageid: m-1
//! all        provisioning            0ne00000000/registrations/reg-1
//! ```
//!
//! Both directions stand side by side because the gateway is the server of them and the client the other end. What a
//! client wrote is read with every tolerance that a real SDK needs; what we write suits the strictest of the five.
//! Ids in topics are compared as exact text: they may hold `+`, `#`, `%` and `$`, so they are never decoded and never
//! patterns.
//!
//! Source: `hub-device-protocols.md` §2.1–2.7, §3, §4 and §5, `edge-broker.md` §1.4, §1.6, §1.7.

pub mod address;
pub mod amqp;
pub mod bag;
pub mod http;
pub mod percent;
pub mod provisioning;
mod subscription;
mod topic;
mod username;

pub use address::{LinkAddress, LinkKind, SaslUser};
pub use subscription::Subscription;
pub use topic::{ClientTopic, ServerTopic, TopicError};
pub use username::{InvalidUserName, UserName};
