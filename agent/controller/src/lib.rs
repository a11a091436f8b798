//! What a mesh has once: the certificate authority and the validating webhook, in one Deployment.
