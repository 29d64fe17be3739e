//! Service links: what back ends do over AMQP. [`ServiceLinks`] is all that the connection's owner needs; the other files turn
//! bytes into what a node is asked, and its answers into bytes.

mod address;
mod admission;
mod cloud_to_device;
mod errors;
mod event_link;
mod event_message;
mod links;
mod management;
mod notice_link;
mod notice_message;
mod position;
#[cfg(test)]
mod tests;

pub(crate) use links::ServiceLinks;
