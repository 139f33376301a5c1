use super::*;

fn signal(path: &str, interface: &str, member: &str, arguments: &(&str, &str, &str)) -> Message {
    Message::signal(path, interface, member).unwrap().build(arguments).unwrap()
}

#[test]
fn owners_that_come_and_go_are_told_apart() {
    let changed = |name| {
        let arguments = (name, "", ":1.7");
        reason(&signal("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", &arguments))
    };
    assert_eq!(changed("org.freedesktop.NetworkManager"), Some(Nudge::NetworkManager));
    assert_eq!(changed("org.freedesktop.network1"), Some(Nudge::Networkd));
    assert_eq!(changed("org.freedesktop.resolve1"), Some(Nudge::Resolved));
    assert_eq!(changed("org.example.Other"), None);
}

#[test]
fn only_signals_of_the_manager_count() {
    let at = |path, interface| reason(&signal(path, interface, "Member", &("", "", "")));
    let device = "org.freedesktop.NetworkManager.Device";
    assert_eq!(at("/org/freedesktop/NetworkManager/Devices/2", device), Some(Nudge::NetworkManager));
    assert_eq!(at("/org/freedesktop", "org.freedesktop.DBus.ObjectManager"), Some(Nudge::NetworkManager));
    let properties = "org.freedesktop.DBus.Properties";
    assert_eq!(at("/org/freedesktop/NetworkManager/DnsManager", properties), Some(Nudge::NetworkManager));
    assert_eq!(at("/org/freedesktop/network1/link/_32", properties), Some(Nudge::Networkd));
    assert_eq!(at("/org/freedesktop/network1", properties), Some(Nudge::Networkd));
    assert_eq!(at("/org/freedesktop/login1", properties), None);
    let path = "/org/freedesktop/NetworkManager/Devices/2";
    let call = Message::method_call(path, "Reapply").unwrap().interface(device).unwrap().build(&()).unwrap();
    assert_eq!(reason(&call), None);
}

#[tokio::test]
async fn a_full_channel_is_no_obstacle() {
    let (sender, mut receiver) = mpsc::channel(1);
    nudge(&sender, Nudge::Bus);
    nudge(&sender, Nudge::NetworkManager);
    assert_eq!(receiver.recv().await, Some(Nudge::Bus));
    drop(receiver);
    nudge(&sender, Nudge::Bus);
}
