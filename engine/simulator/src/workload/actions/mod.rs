//! What a random client does on a channel, one operation per file.

mod churn;
mod consume;
mod get;
mod publish;
mod recover;
mod settle;
mod violate;
