import torch


class History:
    def __init__(self, architecture, genotype, *, every):
        self.a, self.g, self.every = architecture, genotype, every
        self.t, self.m, self.s = [], [], []

    def on_tick(self, record):
        if (record.tick + 1) % self.every == 0:
            self._add(record.tick + 1)

    def _add(self, t):
        with torch.no_grad():
            self.t.append(t)
            self.m.append({k: v.clone() for k, v in self.a().items()})
            self.s.append(self.g().skips)

    def values(self):
        return {
            "ticks": torch.tensor(self.t),
            "mixing": {k: torch.stack([m[k] for m in self.m]) for k in self.m[0]},
            "skips": torch.tensor(self.s),
        }
