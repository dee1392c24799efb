#include "turns.hpp"

#include "clock.hpp"
#include "workspace.hpp"

namespace fastlayer {

bool look_up() {
  Lookout& asked = *t_lookout;
  if (!asked.stopped) {
    const WorkspaceAside aside;
    asked.stopped = asked.stop(asked.context);
  }
  asked.due = asked.stopped ? 0 : now_ns() + kTurnNs;
  return !asked.stopped;
}

}  // namespace fastlayer
