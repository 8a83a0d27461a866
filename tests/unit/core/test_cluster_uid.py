"""What tells this cluster from every other is asked once, and where it can't be had that is said."""

import pytest

from consul_registrar.cluster import Cluster
from consul_registrar.consuls import Unusable
from consul_registrar.kube import Forbidden, KubeError, Unavailable


class Client:
    """Answers with what it is given, one after the other."""

    def __init__(self, *answers: bytes | KubeError) -> None:
        self._answers = list(answers)

    async def get(self, path: str) -> bytes:
        assert path == "/api/v1/namespaces/kube-system"
        answer = self._answers.pop(0)
        if isinstance(answer, KubeError):
            raise answer
        return answer


async def test_the_uid_is_read_once() -> None:
    cluster = Cluster(Client(b'{"metadata": {"uid": "a-b-c"}}'), "pod")  # type: ignore[arg-type]
    assert [await cluster.uid(), await cluster.uid()] == ["a-b-c", "a-b-c"]


@pytest.mark.parametrize("error", [Forbidden("may not get namespaces"), Unavailable("no answer")])
async def test_who_may_not_read_it_is_told_so_and_may_ask_again(error: KubeError) -> None:
    cluster = Cluster(Client(error, b'{"metadata": {"uid": "a-b-c"}}'), "pod")  # type: ignore[arg-type]
    with pytest.raises(Unusable) as caught:
        await cluster.uid()
    assert caught.value.reason.code == "ClusterUidUnreadable"
    assert str(error) in caught.value.reason.message
    assert await cluster.uid() == "a-b-c"
