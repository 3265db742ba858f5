"""The first node's log as a launcher prints it: line by line, through containers that start again and broken streams.

Kubernetes ends a followed log with the container, and a connection that says nothing may be lost. So the log is asked
for again while the job runs, with the time that Kubernetes notes beside each line, by which a line is printed once.
The times are compared within one pod, whose containers are on one machine. Of a container that ended while the stream
was broken Kubernetes keeps the log until the next one has ended as well.

A node that is lost takes the others with it, each container starts again in its pod or in a new one, and training goes
on from what the step keeps; from where, the step itself says in its new log.
"""

from natix_lib.distributed.jobs import Job, NodePod, reason
from natix_lib.errors import TrainingError
from natix_lib.progress import WARNING


class NodeLog:
    """What has been printed of a job's log."""

    def __init__(self, job: Job, num_nodes: int) -> None:
        """Nothing yet, of a job on `num_nodes` nodes."""
        self._job, self._num_nodes = job, num_nodes
        self._pods: dict[int, NodePod] = {}
        self._printed = ("", "")  # pod and time of the last line
        self._whole = ("", -1)  # pod and restarts of the container whose log has come to its end
        self._complaint = ""

    def show(self) -> bool:
        """Print what is new, until the first node's container or the stream ends; a log never ends the run.

        Returns:
            Whether all has been printed that there was.
        """
        try:
            pods = self._job.pods()
        except TrainingError as error:
            self._complain(error)
            return False
        first = pods.get(0)
        if first and self._lacks_end_of_previous(first):
            self._print(first, previous=True)
        for number, pod in sorted(pods.items()):
            self._say_whether_lost(number, pod)
        self._pods |= pods
        if not first or not first.started or (not first.running and self._whole == (first.name, first.restarts)):
            return True
        return self._print(first)

    def _lacks_end_of_previous(self, pod: NodePod) -> bool:
        before = self._pods.get(0)
        if before is None or (before.name, before.restarts + 1) != (pod.name, pod.restarts):
            return False
        return self._whole != (before.name, before.restarts)

    def _print(self, pod: NodePod, previous: bool = False) -> bool:
        if self._printed[0] != pod.name:
            self._printed = (pod.name, "")
        try:
            for stamp, text in self._job.log(pod.name, previous):
                if stamp > self._printed[1]:
                    self._printed = (pod.name, stamp)
                    print(text, flush=True)
        except Exception as error:  # Kubernetes' client's and its HTTP library's
            self._complain(error)
            return False
        if not previous:
            self._whole = (pod.name, pod.restarts)
        return True

    def _complain(self, error: Exception) -> None:
        complaint = " ".join(f"the log of TrainJob {self._job.name} broke off: {reason(error)}".split())
        if complaint != self._complaint:
            print(complaint, flush=True)
        self._complaint = complaint

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
