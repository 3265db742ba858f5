"""The first node's log as a launcher prints it: line by line, through containers that start again and broken streams.

Kubernetes ends a followed log with the container, and a connection that says nothing may be lost. So the log is asked
for again while the job runs, with the time that Kubernetes notes beside each line, by which a line is printed once.
The times are compared within one pod, whose containers are on one machine. Lines that a container logged after the
stream broke, and before it started again within the same seconds, are lost: Kubernetes then gives the new one's.

A node that is lost takes the others with it, each container starts again in its pod or in a new one, and training goes
on from what the step keeps; from where, the step itself says in its new log.
"""

from natix_lib.distributed.jobs import Job, NodePod
from natix_lib.progress import WARNING


class NodeLog:
    """What has been printed of a job's log."""

    def __init__(self, job: Job, num_nodes: int) -> None:
        """Nothing yet, of a job on `num_nodes` nodes."""
        self._job, self._num_nodes = job, num_nodes
        self._pods: dict[int, NodePod] = {}
        self._printed = ("", "")  # pod and time of the last line
        self._whole: NodePod | None = None  # whose log has come to its end
        self._complaint = ""

    def show(self) -> None:
        """Print what is new, until the first node's container or the stream ends; a log never ends the run."""
        try:
            pods = self._job.pods()
            for number, pod in sorted(pods.items()):
                self._say_whether_lost(number, pod)
            self._pods |= pods
            first = pods.get(0)
            if first and first.started and (first.running or first != self._whole):
                self._print(first.name)
                self._whole = first
        except Exception as error:  # Kubernetes' client's, its HTTP library's and ours
            complaint = f"the log of TrainJob {self._job.name} broke off: {error or type(error).__name__}"
            if complaint != self._complaint:
                print(" ".join(complaint.split()), flush=True)
            self._complaint = complaint

    def _print(self, pod: str) -> None:
        if self._printed[0] != pod:
            self._printed = (pod, "")
        for stamp, text in self._job.log(pod):
            if stamp > self._printed[1]:
                self._printed = (pod, stamp)
                print(text, flush=True)

    def _say_whether_lost(self, number: int, pod: NodePod) -> None:
        before = self._pods.get(number)
        if before is None or (before.name, before.restarts) == (pod.name, pod.restarts):
            return
        why = f"with its pod {before.name}" if before.name != pod.name else f"with {pod.ended or 'no exit code'}"
        print(
            f"{WARNING}node {number} of {self._num_nodes} ended {why} and starts again; where the training goes on "
            "stands in the log that follows",
            flush=True,
        )
