# What store/raft uses of pysyncobj 0.3.17; private names are those that store/raft/overrides.py lists.
from pysyncobj.config import FAIL_REASON as FAIL_REASON
from pysyncobj.config import SyncObjConf as SyncObjConf
from pysyncobj.syncobj import SyncObj as SyncObj
