//! What a client can do on a channel.

mod churn;
mod consume;
mod get;
mod publish;
mod recover;
mod settle;
mod violate;
