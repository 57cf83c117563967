"""What the clouds share: HTTP with retries, log streams, the start script, uploads, endings.

`retry` and `http` speak to a service; `errors` says what its refusals mean. `once` submits without
ever making a second job. `start` renders the script that runs in the job. `follow` reads a log over
any number of cut streams, and `ending` tells how a job ended. Where nothing but the job itself can
reach the storage, `mounted` says where everything lies, and `parcel` and `carriers` get it there.
"""
