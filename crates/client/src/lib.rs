//! The Api trait and its HTTP implementation, kubeconfig; the reverse trait NodeApi.
