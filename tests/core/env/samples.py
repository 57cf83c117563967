"""A complete profile of each executor, with nothing to complain of."""

from __future__ import annotations

from tunedeck.core.findings import Finding

SLURM = """
[slurm]
executor = "slurm"
tunnel = "ssh"
host = "login.site.edu"
account = "nlp"
partition = "gpu"
container_image = "nvcr.io/nvidia/nemo:25.11"
workspace = "/lustre/ada"
remote_job_dir = "/lustre/ada/runs"
mounts = ["/lustre:/lustre"]
nodes = 2
gpus_per_node = 8
time = "04:00:00"
"""
LEPTON = """
[lepton]
executor = "lepton"
container_image = "nvcr.io/nvidia/nemo:25.11"
node_group = "h100-pool"
resource_shape = "gpu.8xh100-80gb"
workspace = "/mnt/shared"
nemo_run_dir = "/mnt/shared/runs"
gpus_per_node = 8
mounts = [{ path = "/exports/a", mount_path = "/mnt/shared", from = "node-nfs:a" }]
"""
DGXCLOUD = """
[dgxcloud]
executor = "dgxcloud"
base_url = "https://runai.site.edu/api/v1"
client_id = "tunedeck"
client_secret = "${oc.env:CLOUD_SECRET}"
project_name = "nlp"
container_image = "nvcr.io/nvidia/nemo:25.11"
pvc_nemo_run_dir = "/workspace/runs"
pvcs = [{ name = "w", path = "/workspace", existingPvc = true, claimName = "w-claim" }]
"""
HF = """
[hf]
executor = "hf_jobs"
container_image = "pytorch/pytorch:2.9"
flavor = "a10g-large"
timeout = "2h"
namespace = "ada"
volumes = [{ type = "bucket", source = "ada/out", mount_path = "/out" }]
"""
LOCAL = """
[mine]
executor = "local"
gpus_per_node = 2
"""


def one(findings: list[Finding]) -> Finding:
    """The only finding there is."""
    assert len(findings) == 1, [finding.message for finding in findings]
    return findings[0]
