//! `connection.update-secret`: new credentials on a connection that is open.

use leveret_amqp::encode_frame;
use leveret_amqp::method::{ConnectionUpdateSecret, ConnectionUpdateSecretOk};

use crate::error::Exception;
use crate::routing::topology::Topology;

use super::check_vhost_access;

/// Answers `connection.update-secret` of a running connection, or refuses with 530.
///
/// The method renews credentials that expire. A password does not, so like `RabbitMQ`
/// (`rabbit_auth_backend_internal:state_can_expire` is false) the new secret is not compared with
/// it. What is checked again is whether the user still exists and may still enter the virtual
/// host, as in 4.3. The caller re-checks consumers afterwards.
pub fn update_secret(
    user: &str,
    vhost: &str,
    topology: &Topology,
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    let refused = |error: Exception| error.of(ConnectionUpdateSecret::IDS);
    if topology.user(user).is_none() {
        let text = "New secret was refused by one of the backends";
        return Err(refused(Exception::not_allowed(text)));
    }
    check_vhost_access(user, vhost, topology).map_err(refused)?;
    encode_frame(0, &ConnectionUpdateSecretOk {}, out);
    Ok(())
}
