//! Small blocking clients of our own for what no SDK would say: bad packets, foreign topics, spoiled tokens.

pub mod amqp;
pub mod http;
pub mod mqtt;
pub mod tls;
