"""A real scheduler without a model: everything of SGLang's and ours but the forward pass.

`scheduler(model, …)` gives SGLang's scheduler with our hooks applied as the plugin
applies them, in this process, on the CPU. Requests come in as the tokenizer manager
sends them; admission, batches, pools, radix tree, sampling hooks, results,
retraction, pauses and leak checks are the real ones. Faked are the sockets, which
record, and the worker, whose logits a `Model` makes up. The first one takes two
seconds after the imports, the next ones 20 ms.

One process holds one live scheduler at a time: SGLang's configuration is global.
"""

from .scheduler import Answer, scheduler
from .toy import Toy, linear
from .worker import Model

__all__ = ["Answer", "Model", "Toy", "linear", "scheduler"]
